"""Session with one ComfyUI: the SSH connection, the HTTP client, the websocket, and cached answers of this
ComfyUI."""

import logging
import threading
import time
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.event_stream import EventFeed
from comfyui_workflow.comfyui.folders import Directories
from comfyui_workflow.comfyui.output_names import FileNaming
from comfyui_workflow.comfyui.queue import QueueSnapshot
from comfyui_workflow.comfyui.shared_queue import SharedQueue
from comfyui_workflow.errors import ComfyUIError, ComfyUIUnavailable, InstanceBroken, StoreError
from comfyui_workflow.files.atomic_write import write_atomically
from comfyui_workflow.parsing.ssh_address import SshAddress
from comfyui_workflow.runs.model import Run
from comfyui_workflow.ssh.connection import Connection
from comfyui_workflow.stores.damage import DamageReport
from comfyui_workflow.workflows.node_definitions import Definitions

log = logging.getLogger(__name__)

_NEW_ID_NOTICE = (
    "This server has a new id. ComfyUI sends messages about earlier prompts to the old id, so this server "
    "requests their state instead"
)
LARGE_VALUES = 200_000
MOST_LARGE_VALUES = 1_500_000
DEFINITIONS_AGE_S = 1.0
"""A younger copy is not fetched again when a node class is missing in it: `/object_info` has a megabyte."""


@dataclass(frozen=True, kw_only=True)
class InstanceKey:
    """Two runs with equal keys share one connection."""

    address: SshAddress
    comfyui_port: int
    host_key: str | None = None
    """The pinned SSH fingerprint of the machine; None if none was pinned."""


def key_of(run: Run) -> InstanceKey:
    """Raises: InvalidAddress."""
    return InstanceKey(
        address=run.address,
        comfyui_port=run.comfyui_port,
        host_key=run.placement.host_key if run.placement else None,
    )


def server_id(data_dir: Path, damage: DamageReport | None = None) -> uuid.UUID:
    """Returns the persistent id of this server. It is created once per data directory; if the file is
    damaged, it is created again and the damage is reported. Raises: StoreError."""
    file = data_dir / "server_id"
    made = uuid.uuid4()
    try:
        with suppress(FileNotFoundError):
            return uuid.UUID(file.read_text())
    except ValueError as error:
        (damage or DamageReport()).add(file, error, _NEW_ID_NOTICE)
    except OSError as error:
        raise StoreError(f"The id of this server cannot be read: {error.strerror} ({file})") from error
    try:
        write_atomically(file, str(made).encode())
    except OSError as error:
        raise StoreError(f"The id of this server cannot be saved: {error.strerror} ({file})") from error
    return made


def client_id(key: InstanceKey, server: uuid.UUID) -> str:
    """Returns the websocket client id. It never changes for this server and instance: ComfyUI sends the
    messages of a prompt to the client id that the prompt was submitted with."""
    return str(uuid.uuid5(server, f"{key.address.label} {key.comfyui_port}"))


class LargeDefinitions:
    """Least-recently-used limit on the memory for large node definitions. Counts the sessions whose
    definitions are unusually large, and limits their total number of JSON values, so that no number of
    instances fills the memory. May be used from any thread."""

    def __init__(self, large_values: int = LARGE_VALUES, most_values: int = MOST_LARGE_VALUES) -> None:
        self._large_values = large_values
        self._most_values = most_values
        self._lock = threading.Lock()
        self._kept: OrderedDict[weakref.ref[ComfyUISession], int] = OrderedDict()

    def record_use(self, session: "ComfyUISession", values: int) -> "list[ComfyUISession]":
        """Records that a session used its definitions. Returns the sessions that must drop theirs now: the
        least recently used ones."""
        if values <= self._large_values:
            return []
        with self._lock:
            self._kept[weakref.ref(session)] = values
            self._kept.move_to_end(weakref.ref(session))
            dropped = []
            for gone in [ref for ref in self._kept if ref() is None]:
                del self._kept[gone]
            while len(self._kept) > 1 and sum(self._kept.values()) > self._most_values:
                dropped.append(self._kept.popitem(last=False)[0]())
        return [each for each in dropped if each is not None]


class ComfyUISession:
    """Shared by all runs of an instance. Every method may be called from any thread."""

    def __init__(self, connection: Connection, client: ComfyUIClient, feed: EventFeed) -> None:
        self.connection = connection
        self.client = client
        self.feed = feed
        self._lock = threading.Lock()
        self._queue = SharedQueue(client.queue)
        self._definitions: Definitions | None = None
        self._definitions_asked_s = 0.0
        self._directories: Directories | None = None
        self.saved_names = FileNaming()
        self._marker: str | None = None
        self._known_connections = 0
        self._has_answered = False
        self._is_start_reported = False
        self._broken: tuple[str, str | None] | None = None

    @property
    def is_alive(self) -> bool:
        return self.connection.is_alive

    def close(self) -> None:
        self.connection.close()
        self.feed.close()
        self.client.close()

    def ping(self, *, again: bool) -> None:
        """Checks that ComfyUI answers: only once, and with `again` also after an error, so a run on an
        established session does not pay for the request. Raises: ComfyUIUnavailable."""
        if again or not self._has_answered:
            self.client.probe()
            self._has_answered = True

    def is_first_after_start(self) -> bool:
        """Returns True for the first call only."""
        with self._lock:
            is_first, self._is_start_reported = not self._is_start_reported, True
        return is_first

    def queue(self) -> QueueSnapshot:
        """Returns the copy of `/queue` that all runs of this instance share: at most one second old, older if
        the queue is long."""
        return self._queue()

    def definitions(self) -> Definitions:
        """Returns `/object_info`; cached until ComfyUI may have been restarted."""
        self._forget_after_reconnect()
        known = self._definitions
        if known is None:
            known = self._definitions = Definitions(self.client.definitions())
            self._definitions_asked_s = time.monotonic()
        for other in _large_definitions.record_use(self, self.client.definitions_values):
            other.drop_definitions()
        return known

    @property
    def known_definitions(self) -> Definitions | None:
        """The cached definitions; None if they were not fetched yet."""
        return self._definitions

    def drop_definitions(self) -> None:
        """Removes the cached definitions; the next use fetches them again."""
        self._definitions = None

    def invalidate_definitions(self) -> None:
        """Removes the cached definitions unless they were fetched less than DEFINITIONS_AGE_S ago."""
        if time.monotonic() - self._definitions_asked_s > DEFINITIONS_AGE_S:
            self._definitions = None

    def directories(self) -> Directories:
        """Returns the directories of ComfyUI, as far as it tells them."""
        known = self._directories
        if known is None:
            known = self._directories = self.client.directories()
        return known

    def boot_marker(self) -> str | None:
        """Returns the name of a file in the temp directory of ComfyUI, uploaded if it does not exist yet.
        ComfyUI empties that directory at every start, so a missing file means a restart. None if ComfyUI
        refuses the upload."""
        self._forget_after_reconnect()
        if self._marker is None:
            name = f"comfyui_workflow_{uuid.uuid4().hex}.txt"
            try:
                self._marker = self.client.upload(BytesIO(b"."), name, folder="temp")
            except ComfyUIError as error:
                if isinstance(error, ComfyUIUnavailable):
                    raise
                log.info("no boot marker on %s: %s", self.connection.address.label, error)
        return self._marker

    @property
    def known_marker(self) -> str | None:
        """The boot marker; None if none was uploaded yet."""
        return self._marker

    def is_same_boot(self, marker: str | None) -> bool:
        """True if ComfyUI certainly was not restarted since the marker was uploaded."""
        return marker is not None and self.client.has_file(marker, folder="temp")

    @contextmanager
    def recording_broken_instance(self) -> Iterator[None]:
        """Remembers an InstanceBroken error that is raised inside, so that the next run fails at once
        (`refuse_if_broken`)."""
        try:
            yield
        except InstanceBroken as error:
            self._broken = (str(error), self.boot_marker())
            raise

    def refuse_if_broken(self) -> None:
        """Raises: InstanceBroken as remembered, until ComfyUI is restarted."""
        if self._broken is not None:
            reason, marker = self._broken
            if self.is_same_boot(marker):
                raise InstanceBroken(reason)
            self._broken = None

    def _forget_after_reconnect(self) -> None:
        """Clears the caches after a reconnect, unless the boot marker is still there: behind a new websocket
        may be a new ComfyUI process, with other nodes and an empty temp directory."""
        with self._lock:
            is_known = self.feed.times_connected <= max(1, self._known_connections)
            self._known_connections = self.feed.times_connected
        if not is_known and not self.is_same_boot(self._marker):
            self._definitions = self._directories = self._marker = None


_large_definitions = LargeDefinitions()
