"""Partial downloads: the bytes received so far, and the version of the remote file that they belong to.

How it works: an interrupted part is resumed at its end if the remote file still has the same version. The
version is in a small JSON file (the note) beside the part, with the boot id of this machine. After a reboot
of this machine the part is not used any more: its last bytes may not have reached the disk.
"""

import contextlib
import errno
import json
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ConnectionFailed, RemoteFileError, StoreError

RESUMED_FROM_BYTES = 1_000_000
"""Minimum size in bytes for a resume: a smaller file is downloaded again faster."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_RELEASE_TIMEOUT_S = 30.0


class LocalPart:
    """File that a download writes to. For one thread. `begin` opens the file."""

    def __init__(self, path: Path, *, is_resumable: bool = False) -> None:
        self.path = path
        self._is_resumable = is_resumable
        self._file: int | None = None
        self.size_bytes: int | None = None
        """Size of the whole file, None if unknown."""
        self.is_begun = False
        """Set by `begin`. The caller may clear it."""

    def __enter__(self) -> "LocalPart":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def kept_version(self) -> str | None:
        """Returns the version that the received bytes belong to; None if they cannot be resumed."""
        noted = _read_note(self.path) if self._is_resumable else {}
        version = noted.get("version")
        return version if isinstance(version, str) and noted.get("boot") == _boot_id() else None

    def kept_bytes(self) -> int:
        """Returns the number of received bytes."""
        try:
            return self.path.lstat().st_size
        except OSError:
            return 0

    def begin(self, size_bytes: int | None, version: str | None, *, most_kept: int | None = None) -> int:
        """Opens the part for a version of a file. Returns the number of bytes, from the start of the file,
        that are already there; `write` continues after them. If there are more than `most_kept` of them, or
        more than `size_bytes`, the part starts again from 0. `size_bytes` and `version` are None if unknown.

        Raises: StoreError; RemoteFileError if the file is larger than the whole disk."""
        is_same = version is not None and version == self.kept_version()
        kept_bytes = self.kept_bytes() if is_same else 0
        if most_kept is not None and kept_bytes > most_kept:
            kept_bytes = 0
        if size_bytes is not None and kept_bytes > size_bytes:
            kept_bytes = 0
        with self._as_store_error():
            self._check_free_space(size_bytes, kept_bytes)
            self.close()
            if not kept_bytes:
                forget_version(self.path)
                _unlink_file(self.path)  # it may be a hard link of a finished file, after a kill
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self.path, flags, 0o666)
            os.lseek(self._file, kept_bytes, os.SEEK_SET)
            is_large_enough = version is not None and (size_bytes or 0) >= RESUMED_FROM_BYTES
            if self._is_resumable and is_large_enough and not kept_bytes:
                _write_note(self.path, {"version": version, "boot": _boot_id()})
        self.size_bytes = size_bytes if size_bytes is not None else self.size_bytes
        self.is_begun = True
        return kept_bytes

    def write(self, data: bytes | memoryview) -> None:
        assert self._file is not None, "the part was not begun"  # noqa: S101
        left = memoryview(data)
        with self._as_store_error():
            while left:
                left = left[os.write(self._file, left) :]

    def free_bytes(self) -> int:
        """Returns the free bytes of the disk. Raises: StoreError."""
        with self._as_store_error():
            return shutil.disk_usage(self.path.parent).free

    def discard(self) -> None:
        """Removes the part and its note."""
        self.close()
        remove(self.path)

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with self._as_store_error():
                os.close(file)

    def _check_free_space(self, size_bytes: int | None, kept_bytes: int) -> None:
        disk = shutil.disk_usage(self.path.parent)
        if size_bytes is None or not disk.total:
            return
        if size_bytes > disk.total:
            raise RemoteFileError(
                f"its size is said to be {size_bytes} bytes, but the whole disk here has {disk.total}"
            )
        if size_bytes - kept_bytes > disk.free:
            needed = f"{size_bytes - kept_bytes} bytes are needed, {disk.free} are free"
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({needed})")

    @contextmanager
    def _as_store_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"Cannot write {self.path}: {error.strerror}.") from error


def is_kept(path: Path) -> bool:
    """True if an interrupted part can be resumed."""
    part = LocalPart(path, is_resumable=True)
    return part.kept_version() is not None and part.kept_bytes() > 0


def remove(part: Path) -> None:
    """Removes a part and its note, if they exist. Ignores errors."""
    with contextlib.suppress(OSError):  # e.g. a read-only directory
        forget_version(part)
        part.unlink(missing_ok=True)


def _unlink_file(path: Path) -> None:
    """Removes a regular file or symlink; keeps a device."""
    with contextlib.suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            path.unlink()


def forget_version(part: Path) -> None:
    _note_path(part).unlink(missing_ok=True)


_in_use: set[Path] = set()
_released = threading.Condition()


@contextmanager
def exclusive_part(part: Path, stop: CancelToken) -> Iterator[None]:
    """Holds the exclusive use of a part in this process: an abandoned earlier attempt may still write to it.
    Raises: ConnectionFailed if that attempt does not end within 30 s; Stopped."""
    with stop.notifying(_released), _released:
        _released.wait_for(lambda: part not in _in_use or stop.is_set, _RELEASE_TIMEOUT_S)
        if part in _in_use:
            stop.check()
            raise ConnectionFailed(f"An earlier download of {part.name} has not ended yet.")
        _in_use.add(part)
    try:
        yield
    finally:
        with _released:
            _in_use.discard(part)
            _released.notify_all()


def _note_path(part: Path) -> Path:
    return part.with_name(f"{part.name.removesuffix('.part')}.of.part")


def _write_note(part: Path, noted: dict[str, str | None]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(_note_path(part), flags, 0o600), "w") as file:
        json.dump(noted, file)


def _read_note(part: Path) -> dict[str, object]:
    try:
        noted = json.loads(_note_path(part).read_bytes())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _boot_id() -> str:
    """Returns an id that changes at each boot of this machine; empty if the system has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
