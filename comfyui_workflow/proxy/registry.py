"""The open websockets of a port by client id: no two of one id at a time.

ComfyUI keeps one socket for each client id, and when an old one ends it forgets the newest: a page that is
reloaded would never hear anything again if its old socket closed after the new one had come.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

from comfyui_workflow.proxy.upstream import UpstreamSocket

DEAF_AFTER_S = 3.0


class SocketRegistry:
    """Belongs to the event loop."""

    def __init__(self) -> None:
        self._all: set[UpstreamSocket] = set()
        self._client_ids: set[str] = set()
        """All that ever came: the end of one may reach ComfyUI late."""
        self._closing: dict[str, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def registered(self, socket: UpstreamSocket) -> AsyncIterator[None]:
        """Others of its client id are out of the way first. It is closed in the end."""
        if socket.client_id is not None:
            await self._make_way(socket.client_id)
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
        """That prompt was submitted for who has this client id."""
        for socket in self._all:
            if socket.client_id == client_id:
                socket.unfinished.expect(prompt_id)

    def look_for_deaf_ones(self) -> None:
        """A prompt was submitted, which ComfyUI tells every socket. One that does not hear it, and came after
        another of its client id, was forgotten with that, and is opened once more."""
        loop = asyncio.get_running_loop()
        for socket in self._all:
            if socket.may_be_forgotten:
                loop.call_later(DEAF_AFTER_S, self._renew_if_deaf, socket, socket.heard_count)

    async def close(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _make_way(self, client_id: str) -> None:
        for socket in list(self._all):
            if socket.client_id == client_id:
                await socket.displace()
        if closing := self._closing.pop(client_id, None):
            await asyncio.wait({closing})

    def _renew_if_deaf(self, socket: UpstreamSocket, heard_count: int) -> None:
        if socket in self._all and socket.heard_count == heard_count:
            self._spawn(socket.renew())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        self._closing = {key: each for key, each in self._closing.items() if each is not task}
