"""System events: messages of ComfyUI's websocket, sent to one URL of the operator as webhooks.

How it works. The thread that reads a websocket puts each wanted message into a short queue. One thread takes
them and puts them into the outbox, from where on they are sent as all webhooks are: in any order, and again
after a failure. Messages beyond `MOST_WAITING` are dropped, so that a receiver that is away does not fill the
disk. A delivered one is not kept.
"""

import json
import logging
import queue
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.notification import STORAGE_EVENTS

log = logging.getLogger(__name__)

SUBJECT = "system"
"""In the place of a run id in the list of webhooks."""
MOST_WAITING = 10_000

Message = Mapping[str, Any]
NameOf = Callable[[str], str | None]


class EventOutbox(Protocol):
    def add(
        self,
        url: str,
        body: Mapping[str, Any],
        run_id: str,
        delivery_id: str | None = None,
        *,
        message_id: str | None = None,
        is_kept: bool = True,
    ) -> object:
        """Raises: StoreError."""

    def waiting_count(self) -> int:
        """Returns the number of webhooks that are to be sent."""


@dataclass(frozen=True, kw_only=True)
class SystemEventOptions:
    url: str = field(repr=False)
    events: frozenset[str]
    """Some of `SYSTEM_EVENTS`."""
    metadata: Mapping[str, str]


class SystemEvents:
    """See the module. Thread-safe. Without options nothing is sent, and no thread is started."""

    def __init__(self, options: SystemEventOptions | None) -> None:
        self._options = options
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(MOST_WAITING)
        self._is_full = False
        self._thread: threading.Thread | None = None

    def start(self, outbox: EventOutbox, name_of: NameOf = lambda _: None) -> None:
        """`name_of` returns the id of the client for a prompt id of ComfyUI, if it has another one."""
        if self._options is not None:
            work = (outbox, self._options.url, name_of)
            self._thread = threading.Thread(target=self._work, args=work, name="system events", daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Puts the waiting events into the outbox, for `timeout_s` at most."""
        if self._thread is not None:
            try:
                self._waiting.put(None, timeout=timeout_s)
            except queue.Full:
                return
            self._thread.join(timeout_s)

    def listener(self, instance: str) -> Callable[[Message], None]:
        """Returns a listener for the messages of one instance. It returns at once."""
        return lambda message: self.report(message.get("type"), message, instance)

    def report(self, event: object, data: Any, instance: str | None = None) -> None:
        """Reports an event, if it is wanted. Returns at once. `instance` is the label of the machine."""
        options = self._options
        if options is None or not isinstance(event, str) or event not in options.events:
            return
        source = "storage" if event in STORAGE_EVENTS else "comfy"
        body = {"event": f"{source}.{event}", "data": data, "metadata": dict(options.metadata)}
        try:
            self._waiting.put_nowait(body if instance is None else {**body, "instance": instance})
        except queue.Full:
            self._drop()

    def _work(self, outbox: EventOutbox, url: str, name_of: NameOf) -> None:
        while (body := self._waiting.get()) is not None:
            if outbox.waiting_count() >= MOST_WAITING:
                self._drop()
                continue
            try:
                body["data"] = with_names(body["data"], name_of)
                json.dumps(body, allow_nan=False)
                message_id = f"msg_{secrets.token_hex(12)}"
                outbox.add(url, body, SUBJECT, message_id=message_id, is_kept=False)
            except StoreError as error:
                log.error("A system event is lost: %s", error)
            except (TypeError, ValueError) as error:  # a message of an instance that is not JSON
                log.warning("A system event is left out: %s", error)
            else:
                self._is_full = False

    def _drop(self) -> None:
        if not self._is_full:
            log.warning("System events are dropped: %d webhooks wait already", MOST_WAITING)
        self._is_full = True


def with_names(message: Any, name_of: NameOf) -> Any:
    """Returns a message with the ids of clients in place of those of ComfyUI, also in the `nodes` of
    `progress_state`. An event of storage has none."""
    data = message.get("data") if isinstance(message, Mapping) else None
    if not isinstance(data, Mapping):
        return message
    named = _named(data, name_of)
    nodes = data.get("nodes")
    if isinstance(nodes, Mapping):
        named["nodes"] = {
            node_id: _named(node, name_of) if isinstance(node, Mapping) else node
            for node_id, node in nodes.items()
        }
    return {**message, "data": named}


def _named(fields: Mapping[str, Any], name_of: NameOf) -> dict[str, Any]:
    prompt_id = fields.get("prompt_id")
    name = name_of(prompt_id) if isinstance(prompt_id, str) else None
    return dict(fields) if name is None else {**fields, "prompt_id": name}
