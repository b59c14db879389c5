"""Downloads the bytes of one file, with enough read requests in flight to fill the link.

in_flight_bytes(round_trip_s) -> int
opening(session, remote) -> context manager yielding a function: () -> Source(handle, size_bytes, modified_s)
receive(session, source, take, progress, most_bytes) -> Received(end, modified_s)

How it works: reads are pipelined up to `most_bytes`. A short read is followed by a read of the missing rest.
An empty read is the end of the file. After the data, an fstat tells if the file was modified meanwhile.

A refusal by the instance raises OSError.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from comfyui_workflow.errors import RemoteFileError
from comfyui_workflow.ssh.sftp.session import READING, SftpSession

Progress = Callable[[int, int], None]

# OpenSSH returns up to 255 KiB per read. Every server accepts 32 KiB, the size of paramiko's own reads.
GENEROUS_READ_BYTES = 255 * 1024
READ_BYTES = 32 * 1024

# Bandwidth that the bytes in flight are computed for, and their bounds. With a short round trip, more bytes
# in flight make sshd slower.
FASTEST_LINK_BYTES_PER_S = 200_000_000
LEAST_IN_FLIGHT_BYTES = 2 * 1024 * 1024
MOST_IN_FLIGHT_BYTES = 32 * 1024 * 1024


def in_flight_bytes(round_trip_s: float) -> int:
    """Returns the bytes to keep in flight: bandwidth times round trip, within bounds."""
    wanted = int(round_trip_s * FASTEST_LINK_BYTES_PER_S)
    return max(LEAST_IN_FLIGHT_BYTES, min(wanted, MOST_IN_FLIGHT_BYTES))


@dataclass(frozen=True, kw_only=True)
class Source:
    handle: bytes
    size_bytes: int
    modified_s: int
    """Unix time by the clock of the instance, in whole seconds."""


@dataclass(frozen=True, kw_only=True)
class Received:
    end: int
    """Offset after the last received byte; greater than the size of the source if the file has grown."""
    modified_s: int
    """Modification time of the open file, read after its last byte."""


@contextmanager
def opening(session: SftpSession, remote: str) -> Iterator[Callable[[], Source]]:
    """Opens a remote file for reading, in one round trip. Yields a function that waits for it: until it is
    called, other work can be done. The function raises RemoteFileError for a directory; OSError.

    Closes the file at the end and after a RemoteFileError. After another error the caller gives up the
    session, which closes its files."""
    opened = _Opening(session, remote)
    try:
        yield opened.source
    except RemoteFileError:
        opened.close()
        raise
    opened.close()


class _Opening:
    """Requests for the attributes and the handle of a file."""

    def __init__(self, session: SftpSession, remote: str) -> None:
        self._session = session
        self._remote = remote
        self._stat_request: int | None = session.stat(remote)
        self._open_request: int | None = session.open(remote, READING)
        self._source: Source | None = None

    def source(self) -> Source:
        if self._source is None:
            self._source = self._wait()
        return self._source

    def _wait(self) -> Source:
        stat_request, open_request = self._stat_request, self._open_request
        assert stat_request is not None and open_request is not None, "the file was refused"  # noqa: S101
        self._stat_request = None
        found = self._session.attributes(stat_request)
        if found.is_directory:  # some servers open a directory as a file
            raise RemoteFileError(f"{self._remote} is a directory, not a file.")
        self._open_request = None
        handle = self._session.handle(open_request)
        return Source(handle=handle, size_bytes=found.size_bytes, modified_s=found.modified_s)

    def close(self) -> None:
        """Closes the file, or waits for its handle to do so. Raises: TimeoutError, EOFError."""
        session = self._session
        if self._stat_request is not None:
            session.abandon(self._stat_request)
        if self._source is not None:
            session.abandon(session.close_file(self._source.handle))
        elif self._open_request is not None:
            try:
                session.abandon(session.close_file(session.handle(self._open_request)))
            except TimeoutError:
                raise
            except OSError:  # it was not opened
                return


def receive(
    session: SftpSession,
    source: Source,
    sink: Callable[[memoryview], object],
    progress: Progress,
    *,
    most_bytes: int,
    start: int = 0,
) -> Received:
    """Reads from `start` to the current end of the file. The size in `source` is only the upper limit of the
    read requests: it may be wrong.

    Raises: RemoteFileError if a response has more bytes than requested."""
    piece_bytes = GENEROUS_READ_BYTES if session.takes_large_reads else READ_BYTES
    most_pieces = max(1, most_bytes // piece_bytes)
    pieces = _pieces(start, source.size_bytes, piece_bytes)
    pending: deque[tuple[int, int, int]] = deque()
    fstat_request: int | None = None
    end, is_at_end = start, False
    progress(end, source.size_bytes)
    while True:
        while not is_at_end and len(pending) < most_pieces and (piece := next(pieces, None)):
            pending.append((session.read(source.handle, *piece), *piece))
        if fstat_request is None and (is_at_end or len(pending) < most_pieces):
            fstat_request = session.fstat(source.handle)  # the response comes after those of the reads
        if not pending:
            break
        number, offset, size_bytes = pending.popleft()
        data = session.data(number)
        if len(data) > size_bytes:
            raise RemoteFileError("the instance sends more bytes than were requested")
        is_at_end = is_at_end or not data
        if is_at_end:
            continue
        sink(data)
        end += len(data)
        progress(end, source.size_bytes)
        if len(data) < size_bytes:
            rest = offset + len(data), size_bytes - len(data)
            pending.appendleft((session.read(source.handle, *rest), *rest))
            if fstat_request is not None:
                session.abandon(fstat_request)
                fstat_request = None
    if fstat_request is None:
        fstat_request = session.fstat(source.handle)
    return Received(end=end, modified_s=session.attributes(fstat_request).modified_s)


def _pieces(start: int, size_bytes: int, piece_bytes: int) -> Iterator[tuple[int, int]]:
    """Yields the offset and the size of each read. The last read is one byte after the end of the file, which
    shows if the file has grown."""
    for offset in range(start, size_bytes, piece_bytes):
        yield offset, min(piece_bytes, size_bytes - offset)
    yield size_bytes, 1
