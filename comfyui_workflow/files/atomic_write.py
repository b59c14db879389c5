"""Atomic writes: a file has either the old content or the new content, also after a power cut."""

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path

from comfyui_workflow.files.disk_flush import flush_to_disk


def write_atomically(path: Path, content: bytes, *, must_reach_disk: bool = True) -> None:
    """Replaces a file in one step. The new file can be read by its owner only.

    With `must_reach_disk` the file is on disk when this returns; without it a power cut may leave an empty
    file. A symbolic link at `path` is replaced, not followed.

    Raises: OSError; then the old file is unchanged, unless the flush after the replacement failed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        write_new(temporary, content)
        if must_reach_disk:
            flush_to_disk([temporary])  # before the rename: `path` must never name partial content
        temporary.replace(path)
        if must_reach_disk:
            flush_to_disk([path.parent])
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def make_private_directory(path: Path) -> None:
    """Creates a directory with mode 0700, and its parents. New directories are flushed. Raises: OSError."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if missing:
        flush_to_disk(each.parent for each in missing)


def write_new(path: Path, content: bytes) -> None:
    """Creates a file that must not exist yet; does not flush it. Raises: OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def append_line(path: Path, line: bytes) -> int:
    """Appends a line to a file, which is created if it is missing; does not flush it. If the disk is full, a
    partial line is removed again. Returns the size of the file, in bytes. Raises: OSError."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # by a server that crashed
        content = (b"\n" if is_torn else b"") + line + b"\n"
        try:
            _write_all(descriptor, content)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
        return size + len(content)
    finally:
        os.close(descriptor)


def read_regular(path: Path) -> bytes:
    """Reads a regular file. Never follows a symbolic link, and refuses other kinds of files: the read of a
    pipe would block. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a file", str(path))
        return b"".join(iter(lambda: os.read(descriptor, status.st_size + 1), b""))
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
