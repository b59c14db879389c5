"""What a client's websocket has yet to read. Nobody who puts something in ever waits for the client."""

import asyncio
from collections import deque

from aiohttp import web

Frame = str | bytes

LARGEST_BACKLOG_BYTES = 64 * 1024 * 1024


class SendQueue:
    """Belongs to the event loop."""

    def __init__(self) -> None:
        self.overflowed = asyncio.Event()
        """The client has not read for too long."""
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()

    def put(self, frame: Frame) -> None:
        """One frame alone may be larger than the backlog."""
        if self.overflowed.is_set() or (self._frames and self._bytes + len(frame) > LARGEST_BACKLOG_BYTES):
            self.overflowed.set()
            return
        self._frames.append(frame)
        self._bytes += len(frame)
        self._filled.set()
        self._emptied.clear()

    async def deliver(self, socket: web.WebSocketResponse) -> None:
        """Until the client is gone. Raises: ConnectionError."""
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
