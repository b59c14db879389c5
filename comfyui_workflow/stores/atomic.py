"""Files that are either the old content or the new, never half of it; and what must be on disk, there."""

import contextlib
import ctypes
import errno
import os
import secrets
import stat
from collections.abc import Callable, Sequence
from pathlib import Path


def write_atomically(path: Path, content: bytes, *, must_reach_disk: bool = False) -> None:
    """Replace a file in one step, readable by its owner only. A symbolic link in its place is replaced, not
    followed. Raises: OSError; then the old file is as it was."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if must_reach_disk:
                file.flush()
                os.fsync(descriptor)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def make_private_directory(path: Path) -> None:
    """Raises: OSError."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)


def write_new(path: Path, content: bytes) -> None:
    """A file in a directory that nobody looks into yet. Raises: OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def read_regular(path: Path) -> bytes:
    """Of a file, never through a symbolic link, and of nothing else that may lie there: a pipe would keep its
    reader waiting. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a file", str(path))
        return b"".join(iter(lambda: os.read(descriptor, status.st_size + 1), b""))
    finally:
        os.close(descriptor)


def bring_to_disk(paths: Sequence[Path]) -> None:
    """Files or directories, all of one file system, written before. Raises: OSError."""
    if len(paths) > _FEW and _SYNC_FILE_SYSTEM is not None:
        _with_descriptor(paths[0], _sync_file_system)
        return
    for path in paths:
        _with_descriptor(path, os.fsync)


_FEW = 16
"""So many are faster one by one: syncing the whole file system waits for what others have written, too."""
_SYNC_FILE_SYSTEM = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
"""Of the C library, where it has it: Linux."""


def _with_descriptor(path: Path, use: Callable[[int], None]) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        use(descriptor)
    finally:
        os.close(descriptor)


def _sync_file_system(descriptor: int) -> None:
    if _SYNC_FILE_SYSTEM is not None and _SYNC_FILE_SYSTEM(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
