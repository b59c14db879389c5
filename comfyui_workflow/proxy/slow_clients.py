"""The client connections of one local port: closed if they are too slow, or too many."""

import asyncio
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from aiohttp import web

from comfyui_workflow.access.connection_limits import (
    TOO_SLOW,
    Candidate,
    Clock,
    ConnectionLimits,
    Observed,
    Stage,
    connections_to_close,
)

SWEEP_EVERY_S = 1.0
CLOSED_AT_ONCE = 1 / 64
_ACKNOWLEDGED_AT = 120
"""Offset of `tcpi_bytes_acked` in the `tcp_info` of Linux."""


class WatchedHandler(web.RequestHandler):
    """One connection. `request` is the request in progress, which may be a websocket."""

    __slots__ = ("clock", "is_paused", "received_before_bytes", "received_bytes", "request", "request_count")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.clock = Clock(since_s=time.monotonic())
        self.received_bytes = 0
        self.received_before_bytes = 0
        """Value of `received_bytes` at the end of the last response."""
        self.request: web.BaseRequest | None = None
        self.request_count = 0
        self.is_paused = False

    def pause_reading(self) -> None:
        self.is_paused = True
        super().pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Called for each piece of a body that is read. aiohttp runs the parser even if it was not paused."""
        if self.is_paused:
            self.is_paused = False
            super().resume_reading(resume_parser)

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        super().data_received(data)


class WatchedServer(web.Server):
    """Belongs to the event loop; `watch` runs as long as the port listens."""

    def __init__(self, handler: Any, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(handler, **options)
        self._limits = limits

    def __call__(self) -> web.RequestHandler:
        return WatchedHandler(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._connections) > self._limits.most and not self._make_room(handler):
            transport.abort()

    @contextmanager
    def answering(self, request: web.BaseRequest) -> Iterator[None]:
        handler = cast(WatchedHandler, request.protocol)
        handler.request = request
        handler.request_count += 1
        try:
            yield
        finally:
            handler.request = None
            handler.received_before_bytes = handler.received_bytes

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            self._sweep(time.monotonic())

    def _sweep(self, now_s: float) -> None:
        for handler in self._watched():
            if handler.clock.is_over(_observed(handler), self._limits, now_s):
                _cut(handler)

    def _make_room(self, new: web.RequestHandler) -> bool:
        now_s = time.monotonic()
        self._sweep(now_s)
        candidates = [
            Candidate(connection=each, address="", stage=_stage(each), since_s=each.clock.since_s)
            for each in self._watched()
            if each is not new
        ]
        chosen = connections_to_close(candidates, max(1, int(self._limits.most * CLOSED_AT_ONCE)), now_s)
        for each in chosen:
            _cut(each)
        return bool(chosen)

    def _watched(self) -> list[WatchedHandler]:
        return [
            each
            for each in self.connections
            if isinstance(each, WatchedHandler) and each.transport and not each.transport.is_closing()
        ]


def _observed(handler: WatchedHandler) -> Observed:
    stage = _stage(handler)
    moved = _acknowledged_bytes(handler) if stage is Stage.SENDING else handler.received_bytes
    return Observed(stage=stage, part=handler.request_count, moved_bytes=moved or 0)


def _stage(handler: WatchedHandler) -> Stage:
    transport = cast(asyncio.Transport, handler.transport)
    if transport.get_write_buffer_size() and _acknowledged_bytes(handler) is not None:
        return Stage.SENDING
    if handler.request is not None:
        # If reading is paused, the instance is slow, not the client.
        is_body = not handler.request.content.is_eof() and transport.is_reading()
        return Stage.BODY if is_body else Stage.WORKING
    if handler.received_bytes > handler.received_before_bytes:
        return Stage.HEAD
    return Stage.IDLE if handler.request_count else Stage.SILENT


def _cut(handler: WatchedHandler) -> None:
    transport = cast(asyncio.Transport, handler.transport)
    if _stage(handler) is Stage.HEAD:
        transport.write(TOO_SLOW)
        transport.close()
    else:
        transport.abort()


def _acknowledged_bytes(handler: WatchedHandler) -> int | None:
    """Returns how many of the sent bytes the client has acknowledged; None if the system does not tell."""
    found = handler.transport.get_extra_info("socket") if handler.transport else None
    if found is None or not hasattr(socket, "TCP_INFO"):
        return None
    try:
        info = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED_AT + 8)
        return int(struct.unpack_from("=Q", info, _ACKNOWLEDGED_AT)[0])
    except (OSError, struct.error):
        return None
