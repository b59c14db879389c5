"""Bringing written files to the disk, so that a power cut takes nothing that was promised.

A flush costs the disk some milliseconds, however little was written. So the flushes of a moment are one:
whoever comes while one is under way waits for the next, which serves all who came meanwhile.
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
"""So much may wait to be written on this machine before files are flushed one by one: a flush of the whole
file system waits for all of it, whoever wrote it."""
_SYNC_FILE_SYSTEM = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
"""From the C library, where it has it: Linux."""
_FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None)
"""macOS: its fsync leaves the data in the memory of the disk."""


@dataclass(eq=False)
class _Flush:
    """One flush, and those who wait for it."""

    paths: list[Path] = field(default_factory=list)
    has_leader: bool = False
    is_done: threading.Event = field(default_factory=threading.Event)
    error: OSError | None = None


class GroupFlush:
    """Gathers the flushes of several threads. Every method may be called from any thread."""

    def __init__(self, bring_to_disk: Callable[[Sequence[Path]], None]) -> None:
        self._bring_to_disk = bring_to_disk
        self._lock = threading.Lock()
        self._disk = threading.Lock()
        self._next = _Flush()

    def flush(self, paths: Iterable[Path]) -> None:
        """Returns when everything that was written to these files and directories before is on the disk.
        Raises: OSError."""
        with self._lock:
            mine = self._next
            mine.paths.extend(paths)
            is_leader, mine.has_leader = not mine.has_leader, True
        if is_leader:
            self._lead(mine)
        mine.is_done.wait()
        if mine.error is not None:
            raise OSError(mine.error.errno, mine.error.strerror, mine.error.filename)

    def _lead(self, mine: _Flush) -> None:
        """While the disk is busy with the flush before, others join this one."""
        with self._disk:
            with self._lock:
                self._next = _Flush()
            try:
                self._bring_to_disk(mine.paths)
            except OSError as error:
                mine.error = error
            finally:
                mine.is_done.set()


def bring_to_disk(paths: Sequence[Path]) -> None:
    """Flush files and directories, possibly of several file systems. Raises: OSError."""
    distinct = list(dict.fromkeys(paths))
    if not distinct:
        return
    if len(distinct) == 1 or _SYNC_FILE_SYSTEM is None or _waiting_bytes() > MOST_FOREIGN_BYTES:
        for path in distinct:
            _with_descriptor(path, _sync)
        return
    devices = {path.stat().st_dev: path for path in distinct}
    for path in devices.values():
        _with_descriptor(path, _sync_file_system)


flush_to_disk = GroupFlush(bring_to_disk).flush
"""The disk of this process is one, so its flushes are gathered in one place."""


def _waiting_bytes() -> int:
    """How much all programs of this machine have written that is not on a disk yet."""
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
    """For a file, its content and length are enough."""
    if _FULL_SYNC is not None:
        fcntl.fcntl(descriptor, _FULL_SYNC)
    elif stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.fdatasync(descriptor)
    else:
        _sync_directory(descriptor)


def _sync_directory(descriptor: int) -> None:
    """Some network file systems have no such call: there a name is on the disk with its file."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _sync_file_system(descriptor: int) -> None:
    if _SYNC_FILE_SYSTEM is not None and _SYNC_FILE_SYSTEM(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
