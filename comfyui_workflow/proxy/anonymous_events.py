"""Websocket events of prompts that a local client submitted without a client id.

How it works. ComfyUI sends the start and the end of such a prompt to no socket, and its progress to every
socket. So the local port adds a client id of its own to these prompts (`prompt_rewrite`). One websocket to
ComfyUI with that id receives all their events, and this module forwards them to the websockets of the port's
clients.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from comfyui_workflow.comfyui.messages import prompt_id_of, says_ended
from comfyui_workflow.proxy.error_responses import InstanceUnreachable
from comfyui_workflow.proxy.lease import BROKEN, InstanceLease
from comfyui_workflow.proxy.missed_events import MOST_PROMPTS, message_of
from comfyui_workflow.proxy.send_queue import Frame
from comfyui_workflow.proxy.upstream import UpstreamSocket

log = logging.getLogger(__name__)

Listener = Callable[[Frame], None]

BROADCAST_TYPES = ("progress", "progress_state", "execution_interrupted")
"""Types of the messages that ComfyUI itself sends to every socket if the prompt has no client id."""
OPEN_WITHIN_S = 5.0


class AnonymousEvents:
    """The shared websocket of one port. It is open while there are listeners, from the first time it was
    needed. Belongs to the event loop."""

    def __init__(self, lease: InstanceLease) -> None:
        self.client_id = str(uuid.uuid4())
        """New at every start: the old socket with the same id may still be open at ComfyUI, and ComfyUI would
        unregister the new one when the old one ends."""
        self.socket: UpstreamSocket | None = None
        self._lease = lease
        self._listeners: dict[Listener, bool] = {}
        self._prompts: dict[str, None] = {}
        self._is_anonymous_running = False
        self._is_open = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def join(self, listener: Listener, *, receives_all: bool) -> None:
        """Adds a listener. `receives_all` is for sockets without a client id; other sockets get only what
        ComfyUI would send to them."""
        self._listeners[listener] = receives_all
        if receives_all:
            await self.ensure_open()

    async def leave(self, listener: Listener) -> None:
        self._listeners.pop(listener, None)
        if not self._listeners:
            await self.close()

    async def ensure_open(self) -> None:
        """Returns when the socket is open, or when it cannot be opened for now. Opens nothing without
        listeners."""
        if not self._listeners:
            return
        if self._task is None or self._task.done():
            self._is_open.clear()
            self._task = asyncio.create_task(self._run())
        if self._is_open.is_set():
            return
        is_open = asyncio.create_task(self._is_open.wait())
        either = {self._task, is_open}
        await asyncio.wait(either, timeout=OPEN_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        is_open.cancel()

    def holding(self) -> AbstractContextManager[None]:
        return self.socket.holding() if self.socket else nullcontext()

    def submitted(self, prompt_id: str) -> None:
        self._add_prompt(prompt_id)
        if self.socket:
            self.socket.unfinished.expect(prompt_id)

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        socket = UpstreamSocket(self._lease, f"/ws?clientId={self.client_id}", self._receive)
        try:
            await socket.start()
            self.socket = socket
            self._is_open.set()
            await socket.ended()
        except (InstanceUnreachable, *BROKEN) as error:
            log.info("%s: no events of prompts without a client id: %s", self._lease.name, error)
        finally:
            self.socket = None
            self._is_anonymous_running = False
            await socket.close()

    def _add_prompt(self, prompt_id: str) -> None:
        self._prompts[prompt_id] = None
        if len(self._prompts) > MOST_PROMPTS:
            self._prompts.pop(next(iter(self._prompts)))

    def _receive(self, frame: Frame) -> None:
        """Messages that ComfyUI broadcasts are not forwarded here: the listeners get them on their own
        sockets."""
        if not isinstance(frame, str):
            if self._is_anonymous_running:
                self._notify(frame, to_all=True)
            return
        message = message_of(frame)
        kind, prompt_id = message.get("type"), prompt_id_of(message)
        if kind == "execution_start" and prompt_id is not None:
            self._add_prompt(prompt_id)
            self._is_anonymous_running = True
        if prompt_id in self._prompts:
            self._notify(frame, to_all=kind in BROADCAST_TYPES)
        if prompt_id in self._prompts and says_ended(message):
            self._prompts.pop(prompt_id)
            self._is_anonymous_running = False

    def _notify(self, frame: Frame, *, to_all: bool) -> None:
        for listener, receives_all in list(self._listeners.items()):
            if receives_all or to_all:
                listener(frame)
