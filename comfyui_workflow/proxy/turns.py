"""Limits how many prompts are submitted to one ComfyUI at the same time.

How it works. ComfyUI handles prompts one after another. If a hundred prompts come at once, a new connection
for each of them takes longer than the prompts themselves. So a prompt waits until another one has its
response, and uses its connection. It does not wait for long: the other one may be slow.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LEAST_TURNS = 24
PROMPT_S = 0.001
"""Time in which ComfyUI handles a small prompt."""
PATIENCE_S = 1.0


def turn_count(round_trip_s: float) -> int:
    """Returns how many prompts must be on their way so that ComfyUI never waits for the network."""
    return max(LEAST_TURNS, int(round_trip_s / PROMPT_S))


class Turns:
    """Belongs to the event loop."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Waits for a turn; after PATIENCE_S, goes on without one."""
        has_turn = await self._take()
        try:
            yield
        finally:
            if has_turn:
                self._free.release()

    async def _take(self) -> bool:
        if not self._free.locked():
            return await self._free.acquire()
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._free.acquire()
        except TimeoutError:
            return False
