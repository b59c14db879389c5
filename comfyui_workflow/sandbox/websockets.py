"""Websockets of the clients, and the single task that sends all messages."""

import asyncio
import json
import struct
import uuid
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from aiohttp import WSMsgType, web

from comfyui_workflow.sandbox.faults import FaultBoard


class BinaryEvent(IntEnum):
    """Type of a binary message: its first four bytes."""

    PREVIEW_IMAGE = 1
    PREVIEW_IMAGE_WITH_METADATA = 4


class SocketHub:
    """Sockets by client id, with the reconnect bug of ComfyUI: see `_forget`.

    `send_soon` and `send_binary_soon` can be called from any thread, all other methods only on the event
    loop. One task sends all messages one after the other, so a client that does not read blocks all others,
    as in ComfyUI.
    """

    def __init__(self, *, faults: FaultBoard) -> None:
        self._faults = faults
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._features: dict[str, dict[str, Any]] = {}
        self._transports: set[asyncio.Transport] = set()
        self._outgoing: asyncio.Queue[tuple[str | bytes, str | None]] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._publishing: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._publishing = self._loop.create_task(self._publish())

    def stop(self) -> None:
        self.cut()
        self._loop = None
        if self._publishing:
            self._publishing.cancel()

    def cut(self) -> None:
        """Aborts every socket: the TCP connection ends without a close frame."""
        for transport in self._transports:
            transport.abort()

    def send_soon(self, event: str, data: dict[str, Any], client_id: str | None = None) -> None:
        """Queues a message for a client, or for all clients."""
        self._queue_message(json.dumps({"type": event, "data": data}), client_id)

    def send_binary_soon(self, event: BinaryEvent, data: bytes, client_id: str | None = None) -> None:
        self._queue_message(struct.pack(">I", event) + data, client_id)

    def supports(self, client_id: str | None, feature: str) -> bool:
        """True if the client has declared the feature in its first message."""
        return bool(self._features.get(client_id or "", {}).get(feature))

    async def serve(
        self,
        request: web.Request,
        *,
        queue_info: Callable[[], Any],
        running_node: Callable[[str], str | None],
    ) -> web.WebSocketResponse:
        """Handles GET /ws: sends the status, then reads until the client disconnects."""
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        client_id = request.query.get("clientId", "") or uuid.uuid4().hex
        self._sockets[client_id] = socket
        self._features[client_id] = {}
        transport = request.transport
        if transport is None:
            return socket
        self._transports.add(transport)
        try:
            await self._send(socket, "status", {"status": queue_info(), "sid": client_id})
            if (node_id := running_node(client_id)) is not None:
                await self._send(socket, "executing", {"node": node_id})
            await self._read(socket, client_id)
        finally:
            self._transports.discard(transport)
            self._forget(client_id)
        return socket

    async def _read(self, socket: web.WebSocketResponse, client_id: str) -> None:
        is_first = True
        async for message in socket:
            if message.type is WSMsgType.PING:
                await asyncio.sleep(self._faults.frozen_for_s)
                await socket.pong(message.data)
            elif message.type is WSMsgType.TEXT:
                if is_first:
                    await self._read_features(socket, client_id, message.data)
                is_first = False

    async def _read_features(self, socket: web.WebSocketResponse, client_id: str, text: str) -> None:
        try:
            message = json.loads(text)
        except json.JSONDecodeError:
            return
        version = self._faults.version
        is_about_features = isinstance(message, dict) and message.get("type") == "feature_flags"
        if not version.knows_prompt_ids or not is_about_features:
            return
        self._features[client_id] = message.get("data") or {}
        await self._send(socket, "feature_flags", version.features)

    def _forget(self, client_id: str) -> None:
        """Removes the *newest* socket of the client id, even if an older socket has just ended.

        This imitates a bug of ComfyUI: the newer socket stays open and answers pings, but receives no
        messages.
        """
        self._sockets.pop(client_id, None)
        self._features.pop(client_id, None)

    def _queue_message(self, message: str | bytes, client_id: str | None) -> None:
        if loop := self._loop:
            loop.call_soon_threadsafe(self._outgoing.put_nowait, (message, client_id))

    async def _publish(self) -> None:
        while True:
            message, client_id = await self._outgoing.get()
            await asyncio.sleep(self._faults.frozen_for_s)
            for socket in self._receivers(client_id):
                await self._send_frame(socket, message)

    def _receivers(self, client_id: str | None) -> list[web.WebSocketResponse]:
        if client_id is None:
            return list(self._sockets.values())
        return [self._sockets[client_id]] if client_id in self._sockets else []

    async def _send(self, socket: web.WebSocketResponse, event: str, data: dict[str, Any]) -> None:
        await self._send_frame(socket, json.dumps({"type": event, "data": data}))

    async def _send_frame(self, socket: web.WebSocketResponse, message: str | bytes) -> None:
        if self._faults.now.deaf_websockets or socket.closed:
            return
        try:
            await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
        except ConnectionError:
            return  # the client has disconnected; `serve` removes the socket
