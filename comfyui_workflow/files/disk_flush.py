"""Flushes written files to the disk, so that a power cut loses no acknowledged data.

How it works (group commit): a flush takes the disk some milliseconds, however little was written. So flushes
of several threads are combined: a thread that calls `flush` during a flush joins the next one, which serves
all threads that have joined.
"""

import ctypes
import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MOST_FOREIGN_BYTES = 256 * 1024 * 1024
"""Limit of unwritten data on this machine, above which files are flushed one by one: a flush of the whole
file system waits for the data of all programs."""
_SYNC_FILE_SYSTEM = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
"""syncfs of the C library; only Linux has it."""
_FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None)
"""Only macOS has it; its fsync leaves the data in the cache of the disk."""


@dataclass(eq=False)
class _Flush:
    """One flush that several threads wait for."""

    paths: list[Path] = field(default_factory=list)
    has_leader: bool = False
    is_done: threading.Event = field(default_factory=threading.Event)
    error: OSError | None = None


class GroupFlush:
    """Combines the flushes of several threads. Thread-safe."""

    def __init__(self, bring_to_disk: Callable[[Sequence[Path]], None]) -> None:
        self._bring_to_disk = bring_to_disk
        self._lock = threading.Lock()
        self._disk = threading.Lock()
        self._next = _Flush()

    def flush(self, paths: Iterable[Path]) -> None:
        """Flushes files and directories. When this returns, everything written to them before is on disk.
        Raises: OSError."""
        with self._lock:
            own = self._next
            own.paths.extend(paths)
            is_leader, own.has_leader = not own.has_leader, True
        if is_leader:
            self._lead(own)
        own.is_done.wait()
        if own.error is not None:
            raise OSError(own.error.errno, own.error.strerror, own.error.filename)

    def _lead(self, own: _Flush) -> None:
        """Runs a flush, after the one before. Until then other threads can join it."""
        with self._disk:
            with self._lock:
                self._next = _Flush()
            try:
                self._bring_to_disk(own.paths)
            except OSError as error:
                own.error = error
            finally:
                own.is_done.set()


def bring_to_disk(paths: Sequence[Path]) -> None:
    """Flushes files and directories, possibly of several file systems. Raises: OSError."""
    distinct = list(dict.fromkeys(paths))
    if not distinct:
        return
    if len(distinct) == 1 or _SYNC_FILE_SYSTEM is None or _dirty_bytes() > MOST_FOREIGN_BYTES:
        for path in distinct:
            _with_descriptor(path, _sync)
        return
    devices = {path.stat().st_dev: path for path in distinct}
    for path in devices.values():
        _with_descriptor(path, _sync_file_system)


flush_to_disk = GroupFlush(bring_to_disk).flush
"""One `GroupFlush` for the process, so that all of its flushes are combined."""


def _dirty_bytes() -> int:
    """Returns the bytes that all programs of this machine have written and that are not on disk yet; 0 if
    this is unknown."""
    try:
        lines = Path("/proc/meminfo").read_bytes().splitlines()
        found = {line.split(b":")[0]: line.split()[1] for line in lines}
        return 1024 * (int(found[b"Dirty"]) + int(found[b"Writeback"]))
    except (OSError, KeyError, ValueError):
        return 0


def _with_descriptor(path: Path, use: Callable[[int], None]) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        use(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    """Flushes a file or directory. For a file, the content and length are enough (fdatasync)."""
    if _FULL_SYNC is not None:
        fcntl.fcntl(descriptor, _FULL_SYNC)
    elif stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.fdatasync(descriptor)
    else:
        _sync_directory(descriptor)


def _sync_directory(descriptor: int) -> None:
    """Flushes a directory. Some network file systems do not support this: there the name is on disk together
    with the file."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _sync_file_system(descriptor: int) -> None:
    if _SYNC_FILE_SYSTEM is not None and _SYNC_FILE_SYSTEM(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
