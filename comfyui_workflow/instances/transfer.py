"""The bytes of one file on their way down, with as much under way as the link takes.

in_flight_bytes(round_trip_s) -> int
reading(session, remote) -> context manager yielding Source(handle, size_bytes)
receive(session, source, take, progress, most_bytes) -> bytes received

What the instance refuses comes out as OSError; what the local disk refuses as StoreError.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from comfyui_workflow.errors import RemoteFileError, StoreError
from comfyui_workflow.instances.sftp_session import READING, SftpSession

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


@contextmanager
def reading(session: SftpSession, remote: str) -> Iterator[Source]:
    """One round trip. After anything but our own refusal the session is given up, and closes its files."""
    looking, opening = session.stat(remote), session.open(remote, READING)
    found = session.attributes(looking)
    if found.is_directory:  # some servers open it nevertheless
        _close_again(session, opening)
        raise RemoteFileError(f"{remote} is a directory, not a file.")
    handle = session.handle(opening)
    try:
        yield Source(handle=handle, size_bytes=found.size_bytes)
    except RemoteFileError:
        session.abandon(session.close_file(handle))
        raise
    session.abandon(session.close_file(handle))


def receive(
    session: SftpSession,
    source: Source,
    take: Callable[[memoryview], object],
    progress: Progress,
    *,
    most_bytes: int,
) -> int:
    """Reads to the end, wherever that is by now. Returns the bytes received: one more than there should be
    when the file has grown."""
    piece_bytes = GENEROUS_READ_BYTES if session.takes_large_reads else READ_BYTES
    pieces = _pieces(source.size_bytes, piece_bytes)
    under_way: deque[tuple[int, int, int]] = deque()
    done_bytes = 0
    is_at_end = False
    progress(0, source.size_bytes)
    while True:
        while len(under_way) < max(1, most_bytes // piece_bytes) and (piece := next(pieces, None)):
            under_way.append((session.read(source.handle, *piece), *piece))
        if not under_way:
            return done_bytes
        number, offset, size_bytes = under_way.popleft()
        data = session.data(number)
        is_at_end |= not data
        if is_at_end:
            continue
        take(data)
        done_bytes += len(data)
        progress(done_bytes, source.size_bytes)
        if len(data) < size_bytes:
            rest = offset + len(data), size_bytes - len(data)
            under_way.appendleft((session.read(source.handle, *rest), *rest))


def _close_again(session: SftpSession, opening: int) -> None:
    with suppress(OSError):
        session.abandon(session.close_file(session.handle(opening)))


def _pieces(size_bytes: int, piece_bytes: int) -> Iterator[tuple[int, int]]:
    """Offset and size of each read; the last one is where there should be nothing any more."""
    for offset in range(0, size_bytes, piece_bytes):
        yield offset, min(piece_bytes, size_bytes - offset)
    yield size_bytes, 1


class LocalPart:
    """The local file that a download goes to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("wb")
        except OSError as error:
            raise self._refused(error) from error

    def __enter__(self) -> "LocalPart":
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise self._refused(error) from error

    def write(self, data: memoryview) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> StoreError:
        return StoreError(f"Cannot write {self._path}: {error.strerror}.")
