"""Ownership of the data directory: detects that a second server uses it.

The lock file alone is not enough: if it is deleted, a second server can start.

How it works: each server process has a token. `DATA_DIR/server_processes.json` has the tokens of all
processes so far, the newest last. Before each write of a run, the server checks that the lock file is still
the one it holds and that the newest token is its own. If not, the server writes nothing any more and stops.
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
from comfyui_workflow.parsing.untrusted import as_object

log = logging.getLogger(__name__)

MOST_TOKENS = 2000
CHECK_INTERVAL_S = 1.0
Identity = tuple[int, int, int]


class Ownership:
    """Implements `stores.base.DataOwnership`. See the module. Thread-safe."""

    def __init__(self, data_dir: Path, lock_file: Path) -> None:
        self.token = secrets.token_hex(8)
        self.began_at_s = time.time()
        """Unix seconds."""
        self.are_all_known = True
        """True if the tokens of all earlier processes are known: the list was neither lost nor shortened."""
        self.lost: str | None = None
        """Error sentence after the ownership was lost, None before."""
        self._data_dir = data_dir
        self._file = data_dir / "server_processes.json"
        self._lock_file = lock_file
        self._known: frozenset[str] = frozenset()
        self._lock_identity: Identity | None = None
        self._tokens_identity: Identity | None = None
        self._on_loss: list[Callable[[str], None]] = []
        self._lock = threading.Lock()

    def take(self) -> None:
        """Takes the ownership. Called while the lock file is held, before any record is read.
        Raises: OSError."""
        self._lock_identity = _identity(self._lock_file)
        before = self._read()
        self.are_all_known = before is not None and len(before) < MOST_TOKENS
        tokens = [*(before or [])[1 - MOST_TOKENS :], self.token]
        write_atomically(self._file, json.dumps({"processes": tokens}).encode(), must_reach_disk=True)
        self._tokens_identity = _identity(self._file)
        self._known = frozenset(tokens)
        self.began_at_s = time.time()

    def leave(self) -> None:
        """Ends the ownership at a regular stop; `check` does nothing afterwards."""
        self._lock_identity = None

    def knows(self, token: str) -> bool:
        """True if a process with this token has used the data directory."""
        return token in self._known

    def listen(self, on_loss: Callable[[str], None]) -> None:
        """Registers a callback for the loss of ownership. It gets the error sentence, in the thread that
        noticed the loss."""
        self._on_loss.append(on_loss)

    def check(self) -> None:
        """Checks the ownership. Raises: DataTaken if it is lost; StoreError if it cannot be checked."""
        if self.lost is not None:
            raise DataTaken(self.lost)
        if self._lock_identity is None:
            return
        try:
            is_ours = self._is_lock_held() and self._is_newest()
        except OSError as error:
            raise StoreError(
                f"The data directory {self._data_dir} cannot be read: {error.strerror}"
            ) from error
        if not is_ours:
            self.give_up(
                f"This server stops: its lock file {self._lock_file} was removed or replaced, so another "
                "server may have been started on the same data. The runs were left as they are and go on "
                "where a server runs on these data. Start this one again if there is no other"
            )

    def give_up(self, sentence: str) -> None:
        """Gives up the ownership: nothing is written afterwards. Raises: DataTaken, always."""
        with self._lock:
            is_first, self.lost = self.lost is None, self.lost or sentence
        if is_first:
            log.error("%s", self.lost)
            for callback in self._on_loss:
                callback(self.lost)
        raise DataTaken(self.lost)

    def _is_lock_held(self) -> bool:
        try:
            return _identity(self._lock_file)[:2] == (self._lock_identity or ())[:2]
        except FileNotFoundError:
            return False

    def _is_newest(self) -> bool:
        """True if the newest token is that of this process. Reads the file only if it was replaced or
        changed."""
        try:
            found = _identity(self._file)
            if found == self._tokens_identity:
                return True
            tokens = self._read()
        except FileNotFoundError:
            return True  # a person has deleted it; the lock file is still held
        return bool(tokens) and tokens is not None and tokens[-1] == self.token

    def _read(self) -> list[str] | None:
        """Returns the tokens; None if they are unknown, because the list is lost or damaged. Raises:
        OSError."""
        try:
            found = as_object(json.loads(read_regular(self._file))).get("processes")
        except FileNotFoundError:
            is_first_start = not (self._data_dir / "server_id").exists()
            return [] if is_first_start else None
        except (ValueError, RecursionError):
            log.warning("%s is damaged, and is replaced by a new one", self._file)
            return None
        if not isinstance(found, list):
            log.warning("%s is damaged, and is replaced by a new one", self._file)
            return None
        return [token for token in found if isinstance(token, str)]


class OwnershipMonitor:
    """Thread that checks the ownership every second."""

    def __init__(self, ownership: Ownership) -> None:
        self._ownership = ownership
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ownership", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(CHECK_INTERVAL_S):
            try:
                self._ownership.check()
            except DataTaken:
                return
            except StoreError as error:
                log.warning("%s", error)


def _identity(path: Path) -> Identity:
    """Returns the identity of a file: device, inode number, modification time in ns. Raises: OSError."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_mtime_ns
