"""The open websockets of a local port, at most one per client id.

How it works. ComfyUI keeps one socket per client id. When an old socket with that id closes, ComfyUI
unregisters the id, even if a newer socket uses it: the newer one is then *deaf* (open, but it receives
nothing). A page that is reloaded would become deaf if its old socket closed after the new one opened. So the
old socket is closed first, and a socket that looks deaf is reopened. Sockets of one client id are registered
one after another: each is greeted by ComfyUI before the next one takes its place.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any
from weakref import WeakValueDictionary

from comfyui_workflow.proxy.upstream import UpstreamSocket

DEAF_AFTER_S = 3.0


class SocketRegistry:
    """Belongs to the event loop."""

    def __init__(self) -> None:
        self._all: set[UpstreamSocket] = set()
        self._client_ids: set[str] = set()
        """All client ids that were ever used: ComfyUI may notice the end of an old socket late."""
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._closing: dict[str, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def registered(self, socket: UpstreamSocket) -> AsyncIterator[None]:
        """Disconnects other sockets of the same client id from ComfyUI first (`displace`), then registers
        this one. Closes it at the end."""
        if socket.client_id is None:
            self._all.add(socket)
        else:
            async with self._turns.setdefault(socket.client_id, asyncio.Lock()):
                await self._displace_others(socket.client_id)
                socket.has_predecessor = socket.client_id in self._client_ids
                self._client_ids.add(socket.client_id)
                self._all.add(socket)
        try:
            yield
        finally:
            self._all.discard(socket)
            task = self._spawn(socket.close())
            if socket.client_id is not None:
                self._closing[socket.client_id] = task

    @contextmanager
    def holding(self, client_id: str | None) -> Iterator[None]:
        with ExitStack() as stack:
            for socket in self._all:
                if client_id is not None and socket.client_id == client_id:
                    stack.enter_context(socket.holding())
            yield

    def expect(self, client_id: str, prompt_id: str) -> None:
        """Records that a client with this client id submitted a prompt."""
        for socket in self._all:
            if socket.client_id == client_id:
                socket.unfinished.expect(prompt_id)

    def renew_deaf_sockets(self) -> None:
        """To be called after a submission, which ComfyUI announces to every socket. A socket that may be
        deaf, and receives nothing for DEAF_AFTER_S, is reopened."""
        loop = asyncio.get_running_loop()
        for socket in self._all:
            if socket.may_be_deaf:
                loop.call_later(DEAF_AFTER_S, self._renew_if_deaf, socket, socket.received_count)

    async def close(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _displace_others(self, client_id: str) -> None:
        for socket in list(self._all):
            if socket.client_id == client_id:
                await socket.displace()
        if closing := self._closing.pop(client_id, None):
            await asyncio.wait({closing})

    def _renew_if_deaf(self, socket: UpstreamSocket, received_count: int) -> None:
        if socket in self._all and socket.received_count == received_count:
            self._spawn(socket.renew())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        self._closing = {key: each for key, each in self._closing.items() if each is not task}
