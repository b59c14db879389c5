"""Downloads the bytes of one file, with enough read requests in flight to fill the link.

in_flight_bytes(round_trip_s) -> int
reading(session, remote) -> context manager yielding Source(handle, size_bytes, modified_s)
receive(session, source, take, progress, most_bytes) -> Received(end, modified_s)

How it works: reads are pipelined up to `most_bytes`. A short read is followed by a read of the missing rest.
An empty read is the end of the file. After the data, an fstat tells if the file was modified meanwhile.

A refusal by the instance raises OSError.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
def reading(session: SftpSession, remote: str) -> Iterator[Source]:
    """Opens a remote file for reading, in one round trip.

    Closes it at the end and after a RemoteFileError. After another error the caller gives up the session,
    which closes its files.

    Raises: RemoteFileError for a directory; OSError."""
    stat_request, open_request = session.stat(remote), session.open(remote, READING)
    found = session.attributes(stat_request)
    if found.is_directory:  # some servers open a directory as a file
        _close_opened(session, open_request)
        raise RemoteFileError(f"{remote} is a directory, not a file.")
    handle = session.handle(open_request)
    try:
        yield Source(handle=handle, size_bytes=found.size_bytes, modified_s=found.modified_s)
    except RemoteFileError:
        session.abandon(session.close_file(handle))
        raise
    session.abandon(session.close_file(handle))


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


def _close_opened(session: SftpSession, open_request: int) -> None:
    with suppress(OSError):
        session.abandon(session.close_file(session.handle(open_request)))


def _pieces(start: int, size_bytes: int, piece_bytes: int) -> Iterator[tuple[int, int]]:
    """Yields the offset and the size of each read. The last read is one byte after the end of the file, which
    shows if the file has grown."""
    for offset in range(start, size_bytes, piece_bytes):
        yield offset, min(piece_bytes, size_bytes - offset)
    yield size_bytes, 1
