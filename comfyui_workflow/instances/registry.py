"""The named instances, kept in one file that this server writes and a person may edit while it runs.

InstanceDirectory(file)
    load()                                   raises ConfigurationError where the file cannot be read
    all(), get(id_or_name), require(id_or_name), trouble
    add(fields), change(id_or_name, fields), remove(id_or_name)
    listen(callback)                         called after each change, whoever made it
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from comfyui_workflow.errors import (
    ConfigurationError,
    InstanceNotFound,
    InstancesFileBroken,
    InvalidRequest,
    StoreError,
)
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.instances.registry_file import (
    Content,
    Entry,
    NewerInstances,
    Raw,
    read_content,
    word_content,
)
from comfyui_workflow.instances.schema import new_id, read_instance, refuse_unknown
from comfyui_workflow.stores.damage import DamageReport
from comfyui_workflow.stores.files.atomic_write import make_private_directory, write_atomically

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
LARGEST_BYTES = 16 * 1024 * 1024
_Stamp = tuple[int, int, int]


class InstanceDirectory:
    """Every method may be called from any thread. What a person wrote into the file is noticed by whoever
    reads next, a second later at most; a content that cannot be read leaves the last good one in force."""

    def __init__(
        self,
        file: Path,
        clock: Callable[[], float] = time.monotonic,
        last_good: Path | None = None,
        damage: DamageReport | None = None,
    ) -> None:
        """`last_good`: where a copy of the file is kept as it was when it could last be read."""
        self.file = file
        self._last_good = last_good
        self._damage = damage or DamageReport()
        self._is_newer = False
        self._clock = clock
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._content = self._told = Content()
        self._stamp: _Stamp | None = None
        self._trouble: str | None = None
        self._look_at_s = 0.0
        self._is_missed = False

    def load(self) -> None:
        """A file that cannot be read leaves what it said when it last could in force, if that is known.
        Raises: ConfigurationError."""
        with self._lock:
            self._look(is_loss_believed=True)
            if self._trouble is not None:
                self._take_up_last_good(self._trouble)
        self._tell()

    def _take_up_last_good(self, trouble: str) -> None:
        """Raises: ConfigurationError."""
        try:
            if self._last_good is None or self._is_newer:
                raise ConfigurationError(trouble)
            self._content = read_content(self._last_good.read_bytes())
        except (OSError, InvalidRequest) as error:
            raise ConfigurationError(trouble) from error
        outcome = f"What it said before stays in force ({self._last_good}). Correct the file"
        self._damage.add(self.file, trouble, outcome)

    def _keep_last_good(self) -> None:
        if self._last_good is None:
            return
        try:
            make_private_directory(self._last_good.parent)
            write_atomically(self._last_good, word_content(self._content))
        except OSError as error:
            log.warning("%s cannot be written: %s", self._last_good, error.strerror)

    @property
    def trouble(self) -> str | None:
        """Why the file cannot be read as it is now."""
        with self._reading():
            return self._trouble

    def all(self) -> tuple[Instance, ...]:
        with self._reading():
            return self._content.instances

    def get(self, id_or_name: str) -> Instance | None:
        """By its id, or by its name in any case."""
        with self._reading():
            entry = self._content.find(id_or_name)
        return None if entry is None else entry.instance

    def require(self, id_or_name: str) -> Instance:
        """Raises: InstanceNotFound."""
        found = self.get(id_or_name)
        if found is None:
            raise _not_found(id_or_name)
        return found

    def listen(self, callback: Callable[[], None]) -> None:
        """It is called with no lock held: by who made the change, or by a thread of its own."""
        with self._lock:
            self._listeners.append(callback)

    def add(self, fields: Raw) -> Instance:
        """Raises: InvalidRequest, InstancesFileBroken, StoreError; so do the others."""
        refuse_unknown(fields)
        with self._writing():
            taken = {name for each in self._content.instances for name in (each.id, each.name.casefold())}
            instance_id = new_id(read_instance(fields, "").name, taken)
            self._write(self._content.with_entry(instance_id, fields))
            return self._known(instance_id).instance

    def change(self, id_or_name: str, fields: Raw) -> Instance:
        """A field that is null is as usual again. Raises: InstanceNotFound."""
        refuse_unknown(fields)
        with self._writing():
            entry = self._known(id_or_name)
            self._write(self._content.with_entry(entry.instance.id, {**entry.raw, **fields}))
            return self._known(entry.instance.id).instance

    def remove(self, id_or_name: str) -> Instance:
        """Raises: InstanceNotFound."""
        with self._writing():
            entry = self._known(id_or_name)
            self._write(self._content.without(entry.instance.id))
            return entry.instance

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Who reads may hold a lock that a listener wants too, so they are told by another thread."""
        with self._lock:
            if self._clock() >= self._look_at_s:
                self._look(is_loss_believed=self._is_missed)
            is_news = self._told is not self._content
            yield
        if is_news:
            threading.Thread(target=self._tell, name="tell of instances", daemon=True).start()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """After what others wrote. A file that cannot be read is never overwritten: what it says would be
        lost."""
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
            if self._told is self._content:
                return
            self._told = self._content
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
                self._take_up(Content() if stamp is None else read_content(self._bytes()))
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

    def _take_up(self, content: Content) -> None:
        if content != self._content:
            self._content = content
            self._keep_last_good()

    def _set_trouble(self, trouble: str | None) -> None:
        if trouble != self._trouble and trouble is not None:
            log.warning("%s; what it said before stays in force", trouble)
        self._trouble = trouble

    def _write(self, content: Content) -> None:
        try:
            make_private_directory(self.file.parent)
            write_atomically(self.file, word_content(content))
            self._stamp = self._stamp_now()
        except OSError as error:
            raise StoreError(f"The instances cannot be saved: {error.strerror} ({self.file})") from error
        self._take_up(content)

    def _known(self, id_or_name: str) -> Entry:
        entry = self._content.find(id_or_name)
        if entry is None:
            raise _not_found(id_or_name)
        return entry


def _not_found(id_or_name: str) -> InstanceNotFound:
    return InstanceNotFound(f"There is no instance called {id_or_name[:100]}")
