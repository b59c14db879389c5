"""Frames that wait until a client's websocket can take them. Putting a frame never blocks."""

import asyncio
from collections import deque

from aiohttp import web

Frame = str | bytes

LARGEST_BACKLOG_BYTES = 64 * 1024 * 1024


class SendQueue:
    """Belongs to the event loop."""

    def __init__(self) -> None:
        self.overflowed = asyncio.Event()
        """Set when the client reads too slowly: the backlog is full."""
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()

    def put(self, frame: Frame) -> None:
        """Adds a frame. A single frame may be larger than the limit of the backlog."""
        if self.overflowed.is_set() or (self._frames and self._bytes + len(frame) > LARGEST_BACKLOG_BYTES):
            self.overflowed.set()
            return
        self._frames.append(frame)
        self._bytes += len(frame)
        self._filled.set()
        self._emptied.clear()

    async def deliver(self, socket: web.WebSocketResponse) -> None:
        """Sends the frames until the client disconnects. Raises: ConnectionError."""
        while True:
            await self._filled.wait()
            frame = self._frames[0]
            await (socket.send_str(frame) if isinstance(frame, str) else socket.send_bytes(frame))
            self._frames.popleft()
            self._bytes -= len(frame)
            if not self._frames:
                self._filled.clear()
                self._emptied.set()

    async def emptied(self) -> None:
        if self._frames:
            await self._emptied.wait()
