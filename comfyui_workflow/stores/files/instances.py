"""The named instances in one file, `{"instances": [{…}, …]}`. This server writes it, and a person may edit it
while the server runs.

How it works: a read checks the file's status, at most once per second, and parses the file if it has changed.
If the file cannot be parsed, the last readable content stays in force, and the file is never overwritten: the
edit would be lost."""

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

REFRESH_INTERVAL_S = 1.0
LARGEST_BYTES = 16 * 1024 * 1024
DEEPEST_NESTING = 50
VERSION = 1
"""Newest version of the file that this release reads. A file without a version is accepted."""
_Stamp = tuple[int, int, int]


class NewerInstances(InvalidRequest):
    """The file was written by a newer release."""


class FileInstanceStore:
    """See the module. Thread-safe."""

    def __init__(
        self,
        file: Path,
        complete: Callable[[InstanceDocuments], InstanceDocuments],
        clock: Callable[[], float] = time.monotonic,
        last_good: Path | None = None,
        damage: DamageReport | None = None,
    ) -> None:
        """`complete` adds an id to each document that a person wrote, and raises InvalidRequest if a document
        is invalid. `last_good` is the path of a copy of the last readable content."""
        self.file = file
        self._complete = complete
        self._last_good = last_good
        self._damage = damage or DamageReport()
        self._is_newer = False
        self._clock = clock
        self._lock = threading.Lock()
        self._notify_lock = threading.RLock()
        """Held while the listeners are called, so they see the changes in order."""
        self._listeners: list[Callable[[], None]] = []
        self._documents = self._notified = InstanceDocuments()
        self._stamp: _Stamp | None = None
        self._trouble: str | None = None
        self._refresh_at_s = 0.0
        self._was_missing = False

    def open(self) -> None:
        """Reads the file or, if it cannot be read, the copy of its last readable content.
        Raises: ConfigurationError if neither can be read."""
        with self._lock:
            self._refresh(accepts_missing_file=True)
            if self._trouble is not None:
                self._use_last_good(self._trouble)
        self._notify()

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

    def _use_last_good(self, trouble: str) -> None:
        """Raises: ConfigurationError."""
        try:
            if self._last_good is None or self._is_newer:
                raise ConfigurationError(trouble)
            self._documents = self._parse(self._last_good.read_bytes())
        except (OSError, InvalidRequest) as error:
            raise ConfigurationError(trouble) from error
        outcome = f"Its last readable content stays in force ({self._last_good}). Correct the file"
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
        """Refreshes if it is time, holds the lock, and notifies the listeners of a change. It does so in
        another thread: the reader may hold a lock that a listener needs."""
        with self._lock:
            if self._clock() >= self._refresh_at_s:
                self._refresh(accepts_missing_file=self._was_missing)
            is_changed = self._notified is not self._documents
            yield
        if is_changed:
            threading.Thread(target=self._notify, name="notify of instances", daemon=True).start()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Reads the changes of other programs, holds the lock, and notifies the listeners at the end.

        Raises: InstancesFileBroken."""
        try:
            with self._lock:
                self._refresh(accepts_missing_file=True)
                if self._trouble is not None:
                    raise InstancesFileBroken(f"{self._trouble}. Nothing was changed: correct the file first")
                yield
        finally:
            self._notify()

    def _notify(self) -> None:
        """Returns when the listeners know the current documents. Another thread may be notifying them: it is
        waited for, so that whoever removes an instance and adds it again is heard twice."""
        with self._notify_lock:
            with self._lock:
                if self._notified is self._documents:
                    return
                self._notified = self._documents
                listeners = tuple(self._listeners)
            for listener in listeners:
                listener()

    def _refresh(self, *, accepts_missing_file: bool) -> None:
        """Reads the file if it has changed. An editor may remove the file for a moment while it saves, so a
        missing file is accepted only when it is missing the second time."""
        self._refresh_at_s = self._clock() + REFRESH_INTERVAL_S
        try:
            stamp = self._stamp_now()
            if stamp is None and self._stamp is not None and not accepts_missing_file:
                self._was_missing = True
                return
            if stamp != self._stamp or self._trouble is not None:
                self._apply(InstanceDocuments() if stamp is None else self._parse(self._read_content()))
            self._stamp, self._was_missing = stamp, False
            self._set_trouble(None)
        except InvalidRequest as error:
            self._stamp = stamp
            self._is_newer = isinstance(error, NewerInstances)
            self._set_trouble(f"The instances in {self.file} cannot be read: {error}")
        except OSError as error:
            self._set_trouble(f"The instances in {self.file} cannot be read: {error.strerror}")

    def _stamp_now(self) -> _Stamp | None:
        """Returns the file's status, None if it is missing. It is read before the content, so a change
        between the two is noticed at the next refresh."""
        try:
            status = self.file.stat()
        except FileNotFoundError:
            return None
        return (status.st_mtime_ns, status.st_size, status.st_ino)

    def _read_content(self) -> bytes:
        with self.file.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            raise InvalidRequest("it is too large to be a list of instances")
        return content

    def _apply(self, documents: InstanceDocuments) -> None:
        if documents != self._documents:
            self._documents = documents
            self._keep_last_good()

    def _set_trouble(self, trouble: str | None) -> None:
        if trouble != self._trouble and trouble is not None:
            log.warning("%s; its last readable content stays in force", trouble)
        self._trouble = trouble

    def _write(self, documents: InstanceDocuments) -> None:
        try:
            make_private_directory(self.file.parent)
            write_atomically(self.file, serialize_documents(documents))
            self._stamp = self._stamp_now()
        except OSError as error:
            raise StoreError(f"The instances cannot be saved: {error.strerror} ({self.file})") from error
        self._apply(documents)


def parse_documents(content: bytes) -> InstanceDocuments:
    """Raises: InvalidRequest; NewerInstances."""
    try:
        document = read_json(content)
    except ValueError as error:
        raise InvalidRequest(f"it is not JSON ({error})") from error
    if not isinstance(document, dict) or not isinstance(document.get("instances"), list):
        raise InvalidRequest('it must have the form {"instances": [{…}, …]}')
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
