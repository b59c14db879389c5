"""What becomes of prompts that were submitted here without a client id, told to those who can listen.

ComfyUI tells nobody when such a prompt starts and ends, and everybody how far it is. With a client id of ours
in them, one websocket of ours hears all of it; from here it goes to the sockets of this port.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from comfyui_workflow.comfyui.messages import prompt_id_of, says_ended
from comfyui_workflow.proxy.error_responses import InstanceUnreachable
from comfyui_workflow.proxy.http import BROKEN
from comfyui_workflow.proxy.lease import InstanceLease
from comfyui_workflow.proxy.missed_events import MOST_PROMPTS, message_of
from comfyui_workflow.proxy.send_queue import Frame
from comfyui_workflow.proxy.upstream import UpstreamSocket

log = logging.getLogger(__name__)

Listener = Callable[[Frame], None]

HEARD_BY_ALL = ("progress", "progress_state", "execution_interrupted")
"""What ComfyUI itself tells every socket of a prompt without a client id."""
OPEN_WITHIN_S = 5.0


class AnonymousEvents:
    """Of one port. Open while somebody listens and it was needed once. Belongs to the event loop."""

    def __init__(self, approach: InstanceLease) -> None:
        self.client_id = str(uuid.uuid4())
        """Not the same after a restart: the old socket of the same id may still be open at ComfyUI, and would
        take the new one with it when it ends."""
        self.socket: UpstreamSocket | None = None
        self._approach = approach
        self._listeners: dict[Listener, bool] = {}
        self._prompts: dict[str, None] = {}
        self._is_ours_running = False
        self._is_open = asyncio.Event()
        self._holding: asyncio.Task[None] | None = None

    async def join(self, listener: Listener, *, hears_all: bool) -> None:
        """`hears_all`: a socket without a client id; others hear what ComfyUI would tell them."""
        self._listeners[listener] = hears_all
        if hears_all:
            await self.need()

    async def leave(self, listener: Listener) -> None:
        self._listeners.pop(listener, None)
        if not self._listeners:
            await self.close()

    async def need(self) -> None:
        """Returns when it is open, or cannot be for now. Nothing is opened where nobody listens."""
        if not self._listeners:
            return
        if self._holding is None or self._holding.done():
            self._is_open.clear()
            self._holding = asyncio.create_task(self._hold())
        is_open = asyncio.create_task(self._is_open.wait())
        either = {self._holding, is_open}
        await asyncio.wait(either, timeout=OPEN_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        is_open.cancel()

    def holding(self) -> AbstractContextManager[None]:
        return self.socket.holding() if self.socket else nullcontext()

    def submitted(self, prompt_id: str) -> None:
        self._know(prompt_id)
        if self.socket:
            self.socket.unfinished.expect(prompt_id)

    async def close(self) -> None:
        if self._holding:
            self._holding.cancel()
            await asyncio.wait({self._holding})

    async def _hold(self) -> None:
        socket = UpstreamSocket(self._approach, f"/ws?clientId={self.client_id}", self._hear)
        try:
            await socket.start()
            self.socket = socket
            self._is_open.set()
            await socket.ended()
        except (InstanceUnreachable, *BROKEN) as error:
            log.info("%s: nothing is heard of prompts without a client id: %s", self._approach.name, error)
        finally:
            self.socket = None
            self._is_ours_running = False
            await socket.close()

    def _know(self, prompt_id: str) -> None:
        self._prompts[prompt_id] = None
        if len(self._prompts) > MOST_PROMPTS:
            self._prompts.pop(next(iter(self._prompts)))

    def _hear(self, frame: Frame) -> None:
        """What everybody is told comes to the listeners on sockets of their own."""
        if not isinstance(frame, str):
            if self._is_ours_running:
                self._tell(frame, to_all=True)
            return
        message = message_of(frame)
        kind, prompt_id = message.get("type"), prompt_id_of(message)
        if kind == "execution_start" and prompt_id is not None:
            self._know(prompt_id)
            self._is_ours_running = True
        if prompt_id in self._prompts:
            self._tell(frame, to_all=kind in HEARD_BY_ALL)
        if prompt_id in self._prompts and says_ended(message):
            self._prompts.pop(prompt_id)
            self._is_ours_running = False

    def _tell(self, frame: Frame, *, to_all: bool) -> None:
        for listener, hears_all in list(self._listeners.items()):
            if hears_all or to_all:
                listener(frame)
