"""One websocket of a local client, from its upgrade to its end."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

from comfyui_workflow.proxy.anonymous_events import AnonymousEvents
from comfyui_workflow.proxy.headers import OF_A_HANDSHAKE, travelling
from comfyui_workflow.proxy.http import cut
from comfyui_workflow.proxy.lease import InstanceLease
from comfyui_workflow.proxy.registry import SocketRegistry
from comfyui_workflow.proxy.send_queue import SendQueue
from comfyui_workflow.proxy.upstream import Ending, UpstreamSocket
from comfyui_workflow.proxy.websocket_urls import client_id_in, is_comfyui_socket

LARGEST_FRAME_UP_BYTES = 4 * 1024 * 1024
"""ComfyUI takes no larger ones: the client hears it in the same way."""
LAST_WORDS_S = 5.0


class ClientSocket:
    """Belongs to the event loop."""

    def __init__(
        self,
        approach: InstanceLease,
        feed: AnonymousEvents,
        registry: SocketRegistry,
        without: tuple[str, ...] = (),
    ) -> None:
        """Headers `without` stay here."""
        self._approach = approach
        self._feed = feed
        self._registry = registry
        self._without = without
        self._outbox = SendQueue()

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Raises: Away."""
        upstream = self._upstream(request)
        async with self._registry.registered(upstream):
            try:
                await upstream.start()
            except aiohttp.WSServerHandshakeError as error:
                return web.Response(status=error.status if error.status >= 400 else 502)
            if not is_comfyui_socket(request.raw_path):
                return await self._relay(request, upstream)
            try:
                hears_all = client_id_in(request.raw_path) is None
                await self._feed.join(self._outbox.put, hears_all=hears_all)
                return await self._relay(request, upstream)
            finally:
                await self._feed.leave(self._outbox.put)

    def _upstream(self, request: web.BaseRequest) -> UpstreamSocket:
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        return UpstreamSocket(
            self._approach,
            request.raw_path,
            self._outbox.put,
            headers=travelling(request.raw_headers, *OF_A_HANDSHAKE, *self._without),
            protocols=tuple(each.strip() for each in offered.split(",") if each.strip()),
            compress="permessage-deflate" in request.headers.get("Sec-WebSocket-Extensions", ""),
        )

    async def _relay(self, request: web.BaseRequest, upstream: UpstreamSocket) -> web.StreamResponse:
        """Not compressed: it goes nowhere but through this machine."""
        socket = web.WebSocketResponse(
            compress=False,
            max_msg_size=LARGEST_FRAME_UP_BYTES,
            protocols=(upstream.protocol,) if upstream.protocol else (),
            timeout=1.0,
        )
        await socket.prepare(request)
        works: list[Coroutine[Any, Any, Any]] = [
            upstream.ended(),
            self._outbox.overflowed.wait(),
            _bring_up(socket, upstream),
            self._outbox.deliver(socket),
        ]
        tasks = [asyncio.create_task(work) for work in works]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._outbox.overflowed.is_set():
                cut(request)
            elif tasks[0].done():
                await self._say_goodbye(socket, tasks[0].result())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return socket

    async def _say_goodbye(self, socket: web.WebSocketResponse, ending: Ending) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._outbox.emptied(), LAST_WORDS_S)
        await socket.close(code=ending.code, message=ending.reason)


async def _bring_up(socket: web.WebSocketResponse, upstream: UpstreamSocket) -> None:
    async for message in socket:
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            await upstream.send(message.data)
