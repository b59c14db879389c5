"""One websocket of a local client, from the upgrade request to the close."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

from comfyui_workflow.proxy.anonymous_events import AnonymousEvents
from comfyui_workflow.proxy.headers import HANDSHAKE_HEADERS, forwarded_headers
from comfyui_workflow.proxy.http import cut
from comfyui_workflow.proxy.lease import InstanceLease
from comfyui_workflow.proxy.registry import SocketRegistry
from comfyui_workflow.proxy.send_queue import SendQueue
from comfyui_workflow.proxy.upstream import Ending, UpstreamSocket
from comfyui_workflow.proxy.websocket_urls import client_id_in, is_comfyui_socket

LARGEST_FRAME_UP_BYTES = 4 * 1024 * 1024
"""ComfyUI accepts no larger frames either; aiohttp closes the client's socket in the same way (code 1009)."""
FLUSH_TIMEOUT_S = 5.0


class ClientSocket:
    """Relays between a client's websocket and one to ComfyUI. Belongs to the event loop."""

    def __init__(
        self,
        lease: InstanceLease,
        feed: AnonymousEvents,
        registry: SocketRegistry,
        without: tuple[str, ...] = (),
    ) -> None:
        """Headers in `without` are not forwarded to the instance."""
        self._lease = lease
        self._feed = feed
        self._registry = registry
        self._without = without
        self._send_queue = SendQueue()

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers the upgrade request; returns when the socket is closed. Raises: InstanceUnreachable."""
        upstream = self._upstream(request)
        async with self._registry.registered(upstream):
            try:
                await upstream.start()
            except aiohttp.WSServerHandshakeError as error:
                return web.Response(status=error.status if error.status >= 400 else 502)
            if not is_comfyui_socket(request.raw_path):
                return await self._relay(request, upstream)
            try:
                receives_all = client_id_in(request.raw_path) is None
                await self._feed.join(self._send_queue.put, receives_all=receives_all)
                return await self._relay(request, upstream)
            finally:
                await self._feed.leave(self._send_queue.put)

    def _upstream(self, request: web.BaseRequest) -> UpstreamSocket:
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        return UpstreamSocket(
            self._lease,
            request.raw_path,
            self._send_queue.put,
            headers=forwarded_headers(request.raw_headers, *HANDSHAKE_HEADERS, *self._without),
            protocols=tuple(each.strip() for each in offered.split(",") if each.strip()),
            compress="permessage-deflate" in request.headers.get("Sec-WebSocket-Extensions", ""),
        )

    async def _relay(self, request: web.BaseRequest, upstream: UpstreamSocket) -> web.StreamResponse:
        """Relays in both directions. Not compressed: the data does not leave this machine."""
        socket = web.WebSocketResponse(
            compress=False,
            max_msg_size=LARGEST_FRAME_UP_BYTES,
            protocols=(upstream.protocol,) if upstream.protocol else (),
            timeout=1.0,
        )
        await socket.prepare(request)
        coroutines: list[Coroutine[Any, Any, Any]] = [
            upstream.ended(),
            self._send_queue.overflowed.wait(),
            _send_upstream(socket, upstream),
            self._send_queue.deliver(socket),
        ]
        tasks = [asyncio.create_task(work) for work in coroutines]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._send_queue.overflowed.is_set():
                cut(request)
            elif tasks[0].done():
                await self._close_client(socket, tasks[0].result())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return socket

    async def _close_client(self, socket: web.WebSocketResponse, ending: Ending) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._send_queue.emptied(), FLUSH_TIMEOUT_S)
        await socket.close(code=ending.code, message=ending.reason)


async def _send_upstream(socket: web.WebSocketResponse, upstream: UpstreamSocket) -> None:
    async for message in socket:
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            await upstream.send(message.data)
