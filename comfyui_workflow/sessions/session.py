"""Session with one ComfyUI: the SSH connection, the HTTP client, the websocket, and cached answers of this
ComfyUI."""

import logging
import threading
import time
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from math import inf
from pathlib import Path

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.event_stream import EventFeed
from comfyui_workflow.comfyui.folders import Directories
from comfyui_workflow.comfyui.output_names import FileNaming
from comfyui_workflow.comfyui.queue import QueueSnapshot
from comfyui_workflow.comfyui.shared_queue import SharedQueue
from comfyui_workflow.errors import (
    ComfyUIError,
    ComfyUIUnavailable,
    InstanceBroken,
    StoreError,
    WorkflowError,
)
from comfyui_workflow.files.atomic_write import write_atomically
from comfyui_workflow.parsing.ssh_address import SshAddress
from comfyui_workflow.runs.model import Run
from comfyui_workflow.sessions.port_search import FoundPort, WantedPort, find_exactly, find_port
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
    is_exact: bool = False
    """True if only the ComfyUI on this very port will do: it has the prompt of a run, and the shared session
    of the instance leads to another port."""


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
    exact = " exactly" if key.is_exact else ""
    return str(uuid.uuid5(server, f"{key.address.label} {key.comfyui_port}{exact}"))


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

    def __init__(
        self,
        connection: Connection,
        client: ComfyUIClient,
        feed: EventFeed,
        wanted: Callable[[], WantedPort] | None = None,
    ) -> None:
        """`wanted` tells the port to search, and the login. None: the connection leads to ComfyUI already."""
        self.connection = connection
        self.client = client
        self.feed = feed
        self._wanted = wanted
        self._found: FoundPort | None = None
        self._search = threading.Lock()
        self._search_ended_s = -inf
        self._search_error: WorkflowError | None = None
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

    @property
    def comfyui_port(self) -> int:
        """The port of the instance on which ComfyUI answers; until it was found, the port of the request."""
        return self.connection.comfyui_port

    @property
    def port_notice(self) -> str | None:
        """Tells that ComfyUI was found on another port than the one of the request; None if it was not."""
        return None if self._found is None else self._found.notice

    def reach(self, port: int | None = None, *, again: bool = False) -> bool:
        """Makes sure that the session leads to a ComfyUI that answers: it is searched once, and asked `again`
        after an error, so a run on an established session does not pay for a request. Once it is found, the
        port never changes: the prompts of runs are there.

        Returns False if the caller needs the ComfyUI on `port`, and the session leads to another one.
        Raises: ComfyUIUnavailable, ComfyUINotFound; ConnectionFailed."""
        is_new = self._find(port)
        if port not in (None, self.comfyui_port):
            return False
        if (again and not is_new) or not self._has_answered:
            self.client.probe()
            self._has_answered = True
        return True

    def _find(self, port: int | None) -> bool:
        """Searches the port of ComfyUI unless it is known. Callers that come while a search is running get
        its result. Returns True if ComfyUI answered just now."""
        came_s = time.monotonic()
        with self._search:
            if self._wanted is None or self._found is not None:
                return False
            if self._search_ended_s < came_s or self._search_error is None:
                self._search_error = self._search_port(self._wanted(), port)
                self._search_ended_s = time.monotonic()
            if self._search_error is not None:
                raise self._search_error
            return self._has_answered

    def _search_port(self, wanted: WantedPort, port: int | None) -> WorkflowError | None:
        """Returns the error, so that all who wait get it."""
        try:
            self.client.refuse_after_breach()
            if port is None:
                found = find_port(self.connection, wanted)
            else:
                found = find_exactly(self.connection, replace(wanted, port=port))
            self.connection.lead_to(found.port, found.host)
            self.client.settle(found.port, needs_login=found.needs_login)
            if not found.is_certain:
                self.client.probe()
        except WorkflowError as error:
            return error
        self._found, self._has_answered = found, True
        self.feed.start()
        return None

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
