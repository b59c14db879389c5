"""A wall clock without jumps: the time at the start plus the time that the monotonic clock has counted
since."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from comfyui_workflow.stores.journal import now


class SteadyClock:
    """`clock()` never jumps. `of(at)` converts a time of the wall clock to this clock."""

    def __init__(
        self, wall: Callable[[], datetime] = now, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._began_at, self._began_s = wall(), monotonic()

    def __call__(self) -> datetime:
        return self._began_at + timedelta(seconds=self._monotonic() - self._began_s)

    def of(self, at: datetime) -> datetime:
        """Uses the current difference between the two clocks."""
        return self() + (at - self._wall())
