"""Files that were sent to this server, and how long they stay: until nobody has used them for long."""

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


class Uploads:
    """Each in a directory of its own, which says by its time when it was used last. Every method may be
    called from any thread."""

    def __init__(
        self,
        directory: Path,
        kept_s: float,
        needed: Callable[[], Iterable[str]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`needed` tells paths that a run has yet to read, however old they are."""
        self._directory = directory
        self._kept_s = kept_s
        self._needed = needed
        self._clock = clock
        self._looked_at_s = 0.0

    def keep(self, stream: IO[bytes], name: str) -> Path:
        """Under its own name; on the disk when this returns. Raises: FileRefused, StoreError."""
        place = self.place_for(name)
        piece = stream.read(_COPY_BYTES)
        if holds_private_key(piece):
            raise FileRefused(f"This file is not accepted: {name[:300]!r} has a private key in it")
        try:
            make_private_directory(place.parent)
            with place.open("xb") as file:
                while piece:
                    file.write(piece)
                    piece = stream.read(_COPY_BYTES)
            flush_to_disk([place, place.parent, self._directory])
        except OSError as error:
            raise StoreError(f"The file cannot be stored: {error.strerror}") from error
        return place

    def place_for(self, name: str) -> Path:
        """For a file of that name, in a directory that is not there yet. Raises: FileRefused."""
        base = re.split(r"[/\\]", name)[-1]
        if not is_safe_name(base) or len(base.encode()) > 255:
            raise FileRefused(f"This file name is not accepted: {name[:300]!r}")
        if base.startswith(".") or is_key_name(base):
            raise FileRefused(f"This file name is not accepted: {name[:300]!r} is hidden, or that of a key")
        self._look_now_and_then()
        return self._directory / secrets.token_hex(8) / base

    def used(self, path: Path) -> None:
        """Just now, if it is one of them."""
        if path.parent.parent == self._directory:
            with suppress(OSError):
                os.utime(path.parent)

    def forget_old(self) -> int:
        """Those that were not used for long and are needed no more; how many."""
        limit_s = self._clock() - self._kept_s
        old = {place for place in self._places() if _used_at_s(place) < limit_s}
        if old:
            old -= {Path(path).parent for path in self._needed()}
        for place in old:
            shutil.rmtree(place, ignore_errors=True)
        log.debug("%d uploaded files had not been used for long, and are gone", len(old))
        return len(old)

    def _look_now_and_then(self) -> None:
        """Whoever brings a new one makes room for it."""
        if self._clock() - self._looked_at_s > LOOK_EVERY_S:
            self._looked_at_s = self._clock()
            self.forget_old()

    def _places(self) -> Iterator[Path]:
        with suppress(OSError):  # it is not there yet; or whoever stores a file is told what is wrong with it
            yield from self._directory.iterdir()


def _used_at_s(place: Path) -> float:
    try:
        return place.stat().st_mtime
    except OSError:
        return float("inf")
