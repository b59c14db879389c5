"""An open way to one ComfyUI: the connection, its HTTP client, its websocket, and what is known of it."""

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

from comfyui_workflow.comfyui.client import ComfyUIClient, answer_or
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

_NAMED_ANEW = "This server has a new name: what prompts say that were submitted before is asked for instead"
LARGE_VALUES = 200_000
MOST_LARGE_VALUES = 1_500_000
DEFINITIONS_AGE_S = 1.0
"""Younger ones are believed when they lack something: there is a megabyte of them."""


@dataclass(frozen=True, kw_only=True)
class InstanceKey:
    """What makes two runs share one connection."""

    address: SshAddress
    comfyui_port: int
    host_key: str | None = None
    """The fingerprint that the machine must show, where one was pinned."""


def key_of(run: Run) -> InstanceKey:
    """Raises: InvalidAddress."""
    return InstanceKey(
        address=run.address,
        comfyui_port=run.comfyui_port,
        host_key=run.placement.host_key if run.placement else None,
    )


def server_id(data_dir: Path, damage: DamageReport | None = None) -> uuid.UUID:
    """Made once for a data directory; anew where it is spoiled, which is told. Raises: StoreError."""
    file = data_dir / "server_id"
    made = uuid.uuid4()
    try:
        with suppress(FileNotFoundError):
            return uuid.UUID(file.read_text())
    except ValueError as error:
        (damage or DamageReport()).add(file, error, _NAMED_ANEW)
    except OSError as error:
        raise StoreError(f"The name of this server cannot be read: {error.strerror} ({file})") from error
    try:
        write_atomically(file, str(made).encode())
    except OSError as error:
        raise StoreError(f"The name of this server cannot be saved: {error.strerror} ({file})") from error
    return made


def client_id(key: InstanceKey, server: uuid.UUID) -> str:
    """The same for this server and instance for ever: a prompt's messages go to the id it came with."""
    return str(uuid.uuid5(server, f"{key.address.label} {key.comfyui_port}"))


class LargeDefinitions:
    """Links whose definitions are unusually large. Only so many JSON values are kept of all of these, so that
    no number of instances fills the memory with what they say of themselves. May be used from any thread."""

    def __init__(self, large_values: int = LARGE_VALUES, most_values: int = MOST_LARGE_VALUES) -> None:
        self._large_values = large_values
        self._most_values = most_values
        self._lock = threading.Lock()
        self._kept: OrderedDict[weakref.ref[ComfyUISession], int] = OrderedDict()

    def used(self, session: "ComfyUISession", values: int) -> "list[ComfyUISession]":
        """The links that must drop theirs now: those that used them longest ago."""
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
    """Shared by all runs of an instance; every method may be called from any thread."""

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
        self._known_of_socket = 0
        self._is_proven = False
        self._is_first_asked = False
        self._broken: tuple[str, str | None] | None = None

    @property
    def is_alive(self) -> bool:
        return self.connection.is_alive

    def close(self) -> None:
        self.connection.close()
        self.feed.close()
        self.client.close()

    def ping(self, *, again: bool) -> None:
        """That a ComfyUI answers at all: asked once, and `again` after trouble, so that a run on a warm link
        does not pay for it. Raises: ComfyUIUnavailable."""
        if again or not self._is_proven:
            self.client.probe()
            self._is_proven = True

    def is_first_after_start(self) -> bool:
        """True once, for whoever asks first."""
        with self._lock:
            is_first, self._is_first_asked = not self._is_first_asked, True
        return is_first

    def queue(self) -> QueueSnapshot:
        """A view of `/queue` shared by all runs here: a second old at most, older where it is long."""
        return self._queue()

    def definitions(self) -> Definitions:
        """`/object_info`, asked for once until ComfyUI may have been restarted."""
        self._forget_after_reconnect()
        known = self._definitions
        if known is None:
            known = self._definitions = Definitions(self.client.definitions())
            self._definitions_asked_s = time.monotonic()
        for other in _large_definitions.used(self, self.client.definitions_values):
            other.drop_definitions()
        return known

    @property
    def known_definitions(self) -> Definitions | None:
        """Where they were asked for."""
        return self._definitions

    def drop_definitions(self) -> None:
        """They are asked for when they are wanted again."""
        self._definitions = None

    def forget_definitions(self) -> None:
        """They are asked for anew, unless that was just done."""
        if time.monotonic() - self._definitions_asked_s > DEFINITIONS_AGE_S:
            self._definitions = None

    def directories(self) -> Directories:
        """ComfyUI's own directories; all None where it does not tell them."""
        known = self._directories
        if known is None:
            known = self._directories = answer_or(self.client.directories, Directories())
        return known

    def boot_marker(self) -> str | None:
        """A file in ComfyUI's temp directory, which it empties at every start. None where it takes none."""
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
        """The boot marker, where one was made."""
        return self._marker

    def is_same_boot(self, marker: str | None) -> bool:
        """Whether ComfyUI is known not to have been restarted since it took the marker."""
        return marker is not None and self.client.has_file(marker, folder="temp")

    @contextmanager
    def remembering_if_broken(self) -> Iterator[None]:
        """So that the next run need not find out for itself."""
        try:
            yield
        except InstanceBroken as error:
            self._broken = (str(error), self.boot_marker())
            raise

    def refuse_if_broken(self) -> None:
        """Raises: InstanceBroken, until ComfyUI is restarted."""
        if self._broken is not None:
            reason, marker = self._broken
            if self.is_same_boot(marker):
                raise InstanceBroken(reason)
            self._broken = None

    def _forget_after_reconnect(self) -> None:
        """A new websocket may be a new ComfyUI, with other nodes and an empty temp directory."""
        with self._lock:
            is_known = self.feed.times_connected <= max(1, self._known_of_socket)
            self._known_of_socket = self.feed.times_connected
        if not is_known and not self.is_same_boot(self._marker):
            self._definitions = self._directories = self._marker = None


_large_definitions = LargeDefinitions()
