"""Limits how many prompts are submitted to one ComfyUI at the same time.

How it works. ComfyUI handles prompts one after another. If a hundred prompts come at once, a new connection
for each of them takes longer than the prompts themselves. So a prompt waits until another one has its
response, and uses its connection. It does not wait for long: the other one may be slow.
"""

import asyncio
from collections import deque
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
    """Belongs to the event loop. First come, first served."""

    def __init__(self, count: int) -> None:
        self._free_count = count
        self._waiting: deque[tuple[float, asyncio.Future[bool]]] = deque()
        """When its patience ends, and what gets True with its turn, or False then. One timer serves all: they
        are equally patient."""
        self._ending: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Waits for a turn; after PATIENCE_S, goes on without one."""
        has_turn = await self._take()
        try:
            yield
        finally:
            if has_turn:
                self._release()

    async def _take(self) -> bool:
        if self._free_count:
            self._free_count -= 1
            return True
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        self._waiting.append((loop.time() + PATIENCE_S, turn))
        if self._ending is None:
            self._ending = loop.call_later(PATIENCE_S, self._end_patience)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.result():
                self._release()
            raise

    def _release(self) -> None:
        while self._waiting:
            if _resolve(self._waiting.popleft()[1], True):
                return
        self._free_count += 1

    def _end_patience(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self._waiting[0][0] <= loop.time():
            _resolve(self._waiting.popleft()[1], False)
        self._ending = loop.call_at(self._waiting[0][0], self._end_patience) if self._waiting else None


def _resolve(turn: "asyncio.Future[bool]", has_turn: bool) -> bool:
    """Returns False if nobody waits for this turn any more."""
    if turn.done():
        return False
    turn.set_result(has_turn)
    return True
