"""A wall clock that nobody sets: the time at the start, and what has passed since by the monotonic clock."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from comfyui_workflow.stores.journal import now


class SteadyClock:
    """`clock()` never jumps; `of(at)` is the same moment of the wall clock, as this one shows it."""

    def __init__(
        self, wall: Callable[[], datetime] = now, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._began_at, self._began_s = wall(), monotonic()

    def __call__(self) -> datetime:
        return self._began_at + timedelta(seconds=self._monotonic() - self._began_s)

    def of(self, at: datetime) -> datetime:
        """By what the wall clock shows now."""
        return self() + (at - self._wall())
