"""Whether the data directory is still this process's: who deletes the lock file lets a second server start.

Each server process has a token. The tokens of all processes so far are in `DATA_DIR/server_processes.json`,
the newest last. Every write of a run asks first whether the lock file is still the one that is held and
whether the newest token is still its own; a server that has lost either writes nothing any more and stops.
"""

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from comfyui_workflow.errors import DataTaken, StoreError
from comfyui_workflow.files.atomic_write import read_regular, write_atomically
from comfyui_workflow.parsing.untrusted import an_object

log = logging.getLogger(__name__)

MOST_TOKENS = 2000
LOOK_S = 1.0
Identity = tuple[int, int, int]


class Ownership:
    """Every method may be called from any thread."""

    def __init__(self, data_dir: Path, lock_file: Path) -> None:
        self.token = secrets.token_hex(8)
        self.began_at_s = time.time()
        """Unix seconds."""
        self.are_all_known = True
        """Whether the tokens of all earlier processes are known: not of a list that was lost or shortened."""
        self.lost: str | None = None
        """The sentence, once the data are not this process's any more."""
        self._data_dir = data_dir
        self._file = data_dir / "server_processes.json"
        self._lock_file = lock_file
        self._known: frozenset[str] = frozenset()
        self._held: Identity | None = None
        self._written: Identity | None = None
        self._on_loss: list[Callable[[str], None]] = []
        self._lock = threading.Lock()

    def take(self) -> None:
        """To be called with the lock held, before anything is read. Raises: OSError."""
        self._held = _identity(self._lock_file)
        before = self._read()
        self.are_all_known = before is not None and len(before) < MOST_TOKENS
        tokens = [*(before or [])[1 - MOST_TOKENS :], self.token]
        write_atomically(self._file, json.dumps({"processes": tokens}).encode(), must_reach_disk=True)
        self._written = _identity(self._file)
        self._known = frozenset(tokens)
        self.began_at_s = time.time()

    def leave(self) -> None:
        """The data are given up in good order: nothing is checked any more."""
        self._held = None

    def knows(self, token: str) -> bool:
        """Whether a process on these data had that token."""
        return token in self._known

    def listen(self, on_loss: Callable[[str], None]) -> None:
        """Called once, with the sentence, in the thread that found out."""
        self._on_loss.append(on_loss)

    def check(self) -> None:
        """Raises: DataTaken; StoreError where that cannot be found out."""
        if self.lost is not None:
            raise DataTaken(self.lost)
        if self._held is None:
            return
        try:
            is_ours = self._is_lock_held() and self._is_newest()
        except OSError as error:
            raise StoreError(
                f"The data directory {self._data_dir} cannot be looked at: {error.strerror}"
            ) from error
        if not is_ours:
            self.give_up(
                f"This server stops: its lock file {self._lock_file} was removed or replaced, so another "
                "server may have been started on the same data. The runs were left as they are and go on "
                "where a server runs on these data. Start this one again if there is no other"
            )

    def give_up(self, sentence: str) -> None:
        """From now on nothing is written. Raises: DataTaken, always."""
        with self._lock:
            is_first, self.lost = self.lost is None, self.lost or sentence
        if is_first:
            log.error("%s", self.lost)
            for tell in self._on_loss:
                tell(self.lost)
        raise DataTaken(self.lost)

    def _is_lock_held(self) -> bool:
        try:
            return _identity(self._lock_file)[:2] == (self._held or ())[:2]
        except FileNotFoundError:
            return False

    def _is_newest(self) -> bool:
        """Read again only where the file is not the one that was written."""
        try:
            found = _identity(self._file)
            if found == self._written:
                return True
            tokens = self._read()
        except FileNotFoundError:
            return True  # with the lock held: somebody has tidied up
        return bool(tokens) and tokens is not None and tokens[-1] == self.token

    def _read(self) -> list[str] | None:
        """None where it is not known which there were: the list is gone or damaged. Raises: OSError."""
        try:
            found = an_object(json.loads(read_regular(self._file))).get("processes")
        except FileNotFoundError:
            is_first_start = not (self._data_dir / "server_id").exists()
            return [] if is_first_start else None
        except (ValueError, RecursionError):
            log.warning("%s is damaged, and made anew", self._file)
            return None
        if not isinstance(found, list):
            log.warning("%s is damaged, and made anew", self._file)
            return None
        return [token for token in found if isinstance(token, str)]


class OwnershipMonitor:
    """A thread that looks every second whether the data are still ours."""

    def __init__(self, ownership: Ownership) -> None:
        self._ownership = ownership
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ownership", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            try:
                self._ownership.check()
            except DataTaken:
                return
            except StoreError as error:
                log.warning("%s", error)


def _identity(path: Path) -> Identity:
    """Identity of a file: device, number, and when it was written. Raises: OSError."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_mtime_ns
