"""A file while it is on its way here: what has arrived of it, and of which version of the file that is.

A part that broke off is carried on where it ended, if the file on the instance is still the same. What it is
a part of stands in a small file beside it. After a restart of this machine nothing of it is believed: what
was written last may not have reached the disk.
"""

import contextlib
import errno
import json
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from comfyui_workflow.errors import ConnectionFailed, RemoteFileError, StoreError

RESUMED_FROM_BYTES = 1_000_000
"""A smaller file is fetched anew sooner than its part is looked at."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LET_GO_WITHIN_S = 30.0
_WAKE_UP_S = 0.1


class LocalPart:
    """Where a download writes to. For one thread. Nothing is opened before `begin`."""

    def __init__(self, path: Path, *, is_resumable: bool = False) -> None:
        self.path = path
        self._is_resumable = is_resumable
        self._file: int | None = None
        self.size_bytes: int | None = None
        """Size of the whole file, where that was told."""
        self.is_begun = False
        """Set by `begin`; for whoever uses it to clear."""

    def __enter__(self) -> "LocalPart":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def kept_version(self) -> str | None:
        """Version of the file that the bytes here belong to; None where none are of use."""
        noted = _noted(self.path) if self._is_resumable else {}
        version = noted.get("version")
        return version if isinstance(version, str) and noted.get("boot") == _boot_id() else None

    def kept_bytes(self) -> int:
        """How many bytes are here."""
        try:
            return self.path.lstat().st_size
        except OSError:
            return 0

    def begin(self, size_bytes: int | None, version: str | None, *, most_kept: int | None = None) -> int:
        """Opens the part of this version of a file. Returns how many bytes of it are here already: the first
        ones, `most_kept` at most, behind which `write` goes on. None is for what is not known.
        Raises: StoreError; RemoteFileError for a file that can never fit here."""
        is_same = version is not None and version == self.kept_version()
        kept_bytes = self.kept_bytes() if is_same else 0
        if most_kept is not None and kept_bytes > most_kept:
            kept_bytes = 0
        if size_bytes is not None and kept_bytes > size_bytes:
            kept_bytes = 0
        with self._in_our_words():
            self._make_sure_of_room(size_bytes, kept_bytes)
            self.close()
            if not kept_bytes:
                forget_version(self.path)
                _unlink_file(self.path)  # it may be what was given its name a moment before we were killed
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self.path, flags, 0o666)
            os.lseek(self._file, kept_bytes, os.SEEK_SET)
            is_worth_it = version is not None and (size_bytes or 0) >= RESUMED_FROM_BYTES
            if self._is_resumable and is_worth_it and not kept_bytes:
                _note(self.path, {"version": version, "boot": _boot_id()})
        self.size_bytes = size_bytes if size_bytes is not None else self.size_bytes
        self.is_begun = True
        return kept_bytes

    def write(self, data: bytes | memoryview) -> None:
        assert self._file is not None, "the part was not begun"  # noqa: S101
        left = memoryview(data)
        with self._in_our_words():
            while left:
                left = left[os.write(self._file, left) :]

    def free_bytes(self) -> int:
        """Bytes that the disk has left. Raises: StoreError."""
        with self._in_our_words():
            return shutil.disk_usage(self.path.parent).free

    def discard(self) -> None:
        """Remove what came: it is of no use."""
        self.close()
        remove(self.path)

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with self._in_our_words():
                os.close(file)

    def _make_sure_of_room(self, size_bytes: int | None, kept_bytes: int) -> None:
        disk = shutil.disk_usage(self.path.parent)
        if size_bytes is None or not disk.total:
            return
        if size_bytes > disk.total:
            raise RemoteFileError(
                f"it is said to have {size_bytes} bytes, and the whole disk here has {disk.total}"
            )
        if size_bytes - kept_bytes > disk.free:
            needed = f"{size_bytes - kept_bytes} bytes are needed, {disk.free} are free"
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({needed})")

    @contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"Cannot write {self.path}: {error.strerror}.") from error


def is_kept(path: Path) -> bool:
    """Whether a part that broke off is of use to the next try."""
    part = LocalPart(path, is_resumable=True)
    return part.kept_version() is not None and part.kept_bytes() > 0


def remove(part: Path) -> None:
    """The part, and what it is a part of. Fine when there is none."""
    with contextlib.suppress(OSError):  # its directory may be what cannot be written
        forget_version(part)
        part.unlink(missing_ok=True)


def _unlink_file(path: Path) -> None:
    """Or a link; a device stays."""
    with contextlib.suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            path.unlink()


def forget_version(part: Path) -> None:
    _note_of(part).unlink(missing_ok=True)


_in_use: set[Path] = set()
_let_go = threading.Condition()


@contextmanager
def alone_with(part: Path, stop_if_asked: Callable[[], None]) -> Iterator[None]:
    """Only one thread of this process writes to a part: a try that was given up may not have ended yet.
    Raises: ConnectionFailed when it does not end; what `stop_if_asked` raises."""
    until_s = time.monotonic() + _LET_GO_WITHIN_S
    with _let_go:
        while part in _in_use:
            stop_if_asked()
            if time.monotonic() > until_s:
                raise ConnectionFailed(f"An earlier try to fetch {part.name} has not ended yet.")
            _let_go.wait(_WAKE_UP_S)
        _in_use.add(part)
    try:
        yield
    finally:
        with _let_go:
            _in_use.discard(part)
            _let_go.notify_all()


def _note_of(part: Path) -> Path:
    return part.with_name(f"{part.name.removesuffix('.part')}.of.part")


def _note(part: Path, noted: dict[str, str | None]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(_note_of(part), flags, 0o600), "w") as file:
        json.dump(noted, file)


def _noted(part: Path) -> dict[str, object]:
    try:
        noted = json.loads(_note_of(part).read_bytes())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _boot_id() -> str:
    """An id that changes with each start of this machine; empty where it has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
