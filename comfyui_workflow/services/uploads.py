"""Uploaded files: stored on this server, and removed when no run has used them for a configured time."""

import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from comfyui_workflow.errors import FileRefused, StoreError
from comfyui_workflow.files.atomic_write import make_private_directory
from comfyui_workflow.files.disk_flush import flush_to_disk
from comfyui_workflow.files.sensitive_paths import holds_private_key, is_key_name
from comfyui_workflow.parsing.untrusted import is_safe_name

log = logging.getLogger(__name__)

LOOK_EVERY_S = 86_400.0
_COPY_BYTES = 1024 * 1024
_MOST_PARTS = 8
_GROUP = re.compile("[0-9a-f]{16}")


class Uploads:
    """Store of uploaded files. Thread-safe.

    Each file has its own directory. The modification time of the directory is the time of last use."""

    def __init__(
        self,
        directory: Path,
        kept_s: float,
        needed: Callable[[], Iterable[str]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`kept_s`: seconds since the last use after which a file is removed. `needed` returns paths that a
        run still has to read: those are kept at any age."""
        self._directory = directory
        self._kept_s = kept_s
        self._needed = needed
        self._clock = clock
        self._cleaned_up_at_s = 0.0

    def keep(self, stream: IO[bytes], name: str, group: str | None = None) -> Path:
        """Stores a file under its own name, and returns the path. The file is on disk before this returns.
        Files with the same `group` are stored together: the files of a directory.

        Raises: FileRefused, StoreError."""
        path = self.path_for_upload(name, group)
        piece = stream.read(_COPY_BYTES)
        if holds_private_key(piece):
            raise FileRefused(f"This file is not accepted: {name[:300]!r} has a private key in it")
        try:
            made = [each for each in path.parents if each.is_relative_to(self._directory)]
            for directory in reversed(made):
                make_private_directory(directory)
            with path.open("xb") as file:
                while piece:
                    file.write(piece)
                    piece = stream.read(_COPY_BYTES)
            flush_to_disk([path, *made])
        except OSError as error:
            raise StoreError(f"The file cannot be stored: {error.strerror}") from error
        return path

    def path_for_upload(self, name: str, group: str | None = None) -> Path:
        """Returns the path for a new file of that name, in a directory of its own or of its group.
        Directories in the name are kept, because a workflow may name the file with them.

        Raises: FileRefused."""
        parts = _kept_parts(name)
        base = parts[-1] if parts else ""
        if not base or len(base.encode()) > 255:
            raise FileRefused(f"This file name is not accepted: {name[:300]!r}")
        if base.startswith(".") or is_key_name(base):
            raise FileRefused(
                f"This file name is not accepted: {name[:300]!r} is hidden, or the name of a key"
            )
        if group is not None and not _GROUP.fullmatch(group):
            raise FileRefused("group must be 16 random hexadecimal digits")
        self._clean_up_sometimes()
        return Path(self._directory, group or secrets.token_hex(8), *parts)

    def used(self, path: Path) -> None:
        """Sets the time of last use to now, if `path` is an uploaded file."""
        directory = self._directory_of(path)
        if directory is not None:
            with suppress(OSError):
                os.utime(directory)

    def remove_old(self) -> int:
        """Removes files that were not used for `kept_s` and that no run needs. Returns their number."""
        limit_s = self._clock() - self._kept_s
        old = {directory for directory in self._directories() if _used_at_s(directory) < limit_s}
        if old:
            old -= {self._directory_of(Path(path)) for path in self._needed()}
        for directory in old:
            shutil.rmtree(directory, ignore_errors=True)
        log.debug("%d uploaded files had not been used for a long time and were removed", len(old))
        return len(old)

    def _directory_of(self, path: Path) -> Path | None:
        """Returns the directory of an upload; None for any other path."""
        if not path.is_relative_to(self._directory) or path == self._directory:
            return None
        return self._directory / path.relative_to(self._directory).parts[0]

    def _clean_up_sometimes(self) -> None:
        """Removes old files, at most once in `LOOK_EVERY_S`. Each upload calls this."""
        if self._clock() - self._cleaned_up_at_s > LOOK_EVERY_S:
            self._cleaned_up_at_s = self._clock()
            self.remove_old()

    def _directories(self) -> Iterator[Path]:
        with suppress(OSError):  # missing before the first upload; `keep` reports other errors
            yield from self._directory.iterdir()


def _kept_parts(name: str) -> list[str]:
    """Returns the last parts of a name: its file name, and the directories before it that are safe and not
    hidden."""
    kept: list[str] = []
    for part in reversed(re.split(r"[/\\]", name)):
        is_kept = is_safe_name(part) and (not kept or not part.startswith(".")) and len(part.encode()) <= 255
        if not is_kept or len(kept) >= _MOST_PARTS:
            break
        kept.insert(0, part)
    return kept


def _used_at_s(directory: Path) -> float:
    try:
        return directory.stat().st_mtime
    except OSError:
        return float("inf")
