"""The bytes of one file on their way down, with as much under way as the link takes.

in_flight_bytes(round_trip_s) -> int
reading(session, remote) -> context manager yielding Source(handle, size_bytes, modified_s)
receive(session, source, take, progress, most_bytes) -> Received(end, modified_s)

What the instance refuses comes out as OSError.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from comfyui_workflow.errors import RemoteFileError
from comfyui_workflow.ssh.sftp.session import READING, SftpSession

Progress = Callable[[int, int], None]

# OpenSSH answers up to 255 KiB at once; a size that every server takes is that of paramiko's own files.
GENEROUS_READ_BYTES = 255 * 1024
READ_BYTES = 32 * 1024

# What a link is filled for, within bounds: near, more than this makes sshd slower.
FASTEST_LINK_BYTES_PER_S = 200_000_000
LEAST_IN_FLIGHT_BYTES = 2 * 1024 * 1024
MOST_IN_FLIGHT_BYTES = 32 * 1024 * 1024


def in_flight_bytes(round_trip_s: float) -> int:
    wanted = int(round_trip_s * FASTEST_LINK_BYTES_PER_S)
    return max(LEAST_IN_FLIGHT_BYTES, min(wanted, MOST_IN_FLIGHT_BYTES))


@dataclass(frozen=True, kw_only=True)
class Source:
    handle: bytes
    size_bytes: int
    modified_s: int
    """By the clock of the instance, in whole seconds."""


@dataclass(frozen=True, kw_only=True)
class Received:
    end: int
    """Where the last byte was: one more than there should be when the file has grown."""
    modified_s: int
    """When the file that was read was modified last, as it was after the last byte was read."""


@contextmanager
def reading(session: SftpSession, remote: str) -> Iterator[Source]:
    """One round trip. After anything but our own refusal the session is given up, and closes its files."""
    stat_request, open_request = session.stat(remote), session.open(remote, READING)
    found = session.attributes(stat_request)
    if found.is_directory:  # some servers open it nevertheless
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
    """Reads from `start` to the end, wherever that is by now. How large the file is said to be decides how
    much is asked for at most, and nothing else: nobody vouches for it.
    Raises: RemoteFileError for an answer of more bytes than were asked for."""
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
            fstat_request = session.fstat(source.handle)  # answered after all that was asked before
        if not pending:
            break
        number, offset, size_bytes = pending.popleft()
        data = session.data(number)
        if len(data) > size_bytes:
            raise RemoteFileError("the instance answers with more bytes than were asked for")
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
    """Offset and size of each read; the last one is where there should be nothing any more."""
    for offset in range(start, size_bytes, piece_bytes):
        yield offset, min(piece_bytes, size_bytes - offset)
    yield size_bytes, 1
