"""The named instances in one file, `{"instances": [{…}, …]}`, that this server writes and a person may edit
while it runs.

An edit is noticed by whoever reads next, a second later at most. A content that cannot be read leaves the
last good one in force, and is never overwritten: what it says would be lost."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from comfyui_workflow.errors import ConfigurationError, InstancesFileBroken, InvalidRequest, StoreError
from comfyui_workflow.files.atomic_write import make_private_directory, write_atomically
from comfyui_workflow.parsing.untrusted import read_json
from comfyui_workflow.stores.base import InstanceDocuments
from comfyui_workflow.stores.damage import DamageReport

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
LARGEST_BYTES = 16 * 1024 * 1024
DEEPEST_NESTING = 50
VERSION = 1
"""Newest version of the file that this release reads. A file need not name one."""
_Stamp = tuple[int, int, int]


class NewerInstances(InvalidRequest):
    """The file of a newer release."""


class FileInstanceStore:
    """Every method may be called from any thread."""

    def __init__(
        self,
        file: Path,
        complete: Callable[[InstanceDocuments], InstanceDocuments],
        clock: Callable[[], float] = time.monotonic,
        last_good: Path | None = None,
        damage: DamageReport | None = None,
    ) -> None:
        """`complete` gives each document that a person wrote an id, and raises InvalidRequest where one
        cannot be read. `last_good` is where a copy of the file is kept as it was when it could last be
        read."""
        self.file = file
        self._complete = complete
        self._last_good = last_good
        self._damage = damage or DamageReport()
        self._is_newer = False
        self._clock = clock
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._documents = self._told = InstanceDocuments()
        self._stamp: _Stamp | None = None
        self._trouble: str | None = None
        self._look_at_s = 0.0
        self._is_missed = False

    def open(self) -> None:
        """A file that cannot be read leaves its last good copy in force, if there is one.
        Raises: ConfigurationError."""
        with self._lock:
            self._look(is_loss_believed=True)
            if self._trouble is not None:
                self._take_up_last_good(self._trouble)
        self._tell()

    def read(self) -> InstanceDocuments:
        with self._reading():
            return self._documents

    @property
    def trouble(self) -> str | None:
        with self._reading():
            return self._trouble

    def update(self, change: Callable[[InstanceDocuments], InstanceDocuments]) -> InstanceDocuments:
        with self._writing():
            self._write(change(self._documents))
            return self._documents

    def listen(self, callback: Callable[[], None]) -> None:
        with self._lock:
            self._listeners.append(callback)

    def _take_up_last_good(self, trouble: str) -> None:
        """Raises: ConfigurationError."""
        try:
            if self._last_good is None or self._is_newer:
                raise ConfigurationError(trouble)
            self._documents = self._parse(self._last_good.read_bytes())
        except (OSError, InvalidRequest) as error:
            raise ConfigurationError(trouble) from error
        outcome = f"What it said before stays in force ({self._last_good}). Correct the file"
        self._damage.add(self.file, trouble, outcome)

    def _parse(self, content: bytes) -> InstanceDocuments:
        """Raises: InvalidRequest."""
        return self._complete(parse_documents(content))

    def _keep_last_good(self) -> None:
        if self._last_good is None:
            return
        try:
            make_private_directory(self._last_good.parent)
            write_atomically(self._last_good, serialize_documents(self._documents))
        except OSError as error:
            log.warning("%s cannot be written: %s", self._last_good, error.strerror)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """A reader may hold a lock that a listener wants too, so listeners are called in another thread."""
        with self._lock:
            if self._clock() >= self._look_at_s:
                self._look(is_loss_believed=self._is_missed)
            is_news = self._told is not self._documents
            yield
        if is_news:
            threading.Thread(target=self._tell, name="tell of instances", daemon=True).start()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Take up first what others wrote."""
        try:
            with self._lock:
                self._look(is_loss_believed=True)
                if self._trouble is not None:
                    raise InstancesFileBroken(f"{self._trouble}. Nothing was changed: correct the file first")
                yield
        finally:
            self._tell()

    def _tell(self) -> None:
        with self._lock:
            if self._told is self._documents:
                return
            self._told = self._documents
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()

    def _look(self, *, is_loss_believed: bool) -> None:
        """Take up what the file says now. An editor may remove a file for a moment while it saves it, so
        that one is missed once before it is believed to be gone."""
        self._look_at_s = self._clock() + LOOK_EVERY_S
        try:
            stamp = self._stamp_now()
            if stamp is None and self._stamp is not None and not is_loss_believed:
                self._is_missed = True
                return
            if stamp != self._stamp or self._trouble is not None:
                self._take_up(InstanceDocuments() if stamp is None else self._parse(self._bytes()))
            self._stamp, self._is_missed = stamp, False
            self._set_trouble(None)
        except InvalidRequest as error:
            self._stamp = stamp
            self._is_newer = isinstance(error, NewerInstances)
            self._set_trouble(f"The instances in {self.file} cannot be read: {error}")
        except OSError as error:
            self._set_trouble(f"The instances in {self.file} cannot be read: {error.strerror}")

    def _stamp_now(self) -> _Stamp | None:
        """Taken before the content is read: a change that comes between is seen the next time."""
        try:
            status = self.file.stat()
        except FileNotFoundError:
            return None
        return (status.st_mtime_ns, status.st_size, status.st_ino)

    def _bytes(self) -> bytes:
        with self.file.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            raise InvalidRequest("it is too large to be a list of instances")
        return content

    def _take_up(self, documents: InstanceDocuments) -> None:
        if documents != self._documents:
            self._documents = documents
            self._keep_last_good()

    def _set_trouble(self, trouble: str | None) -> None:
        if trouble != self._trouble and trouble is not None:
            log.warning("%s; what it said before stays in force", trouble)
        self._trouble = trouble

    def _write(self, documents: InstanceDocuments) -> None:
        try:
            make_private_directory(self.file.parent)
            write_atomically(self.file, serialize_documents(documents))
            self._stamp = self._stamp_now()
        except OSError as error:
            raise StoreError(f"The instances cannot be saved: {error.strerror} ({self.file})") from error
        self._take_up(documents)


def parse_documents(content: bytes) -> InstanceDocuments:
    """Raises: InvalidRequest; NewerInstances."""
    try:
        document = read_json(content)
    except ValueError as error:
        raise InvalidRequest(f"it is not JSON ({error})") from error
    if not isinstance(document, dict) or not isinstance(document.get("instances"), list):
        raise InvalidRequest('it does not read {"instances": [{…}, …]}')
    version = document.get("version")
    if isinstance(version, int) and version > VERSION:
        raise NewerInstances(
            f"it is of version {version}, which a newer release has written; this reads version {VERSION}. "
            "Start that release again, or name another file with COMFYUI_WORKFLOW_INSTANCES_FILE"
        )
    if _is_nested_deeper(document, DEEPEST_NESTING):
        raise InvalidRequest("it is nested too deeply")
    rest = {name: value for name, value in document.items() if name != "instances"}
    return InstanceDocuments(documents=tuple(document["instances"]), rest=rest)


def serialize_documents(documents: InstanceDocuments) -> bytes:
    document = {**documents.rest, "instances": documents.documents}
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _is_nested_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_nested_deeper(each, levels - 1) for each in inner)
