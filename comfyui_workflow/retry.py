"""How long and how often to try again what can pass."""

import random
import threading
import time
from collections.abc import Callable, Hashable

WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
_SOON = 2
"""The longest wait while the other side answers: two seconds."""
JITTER = 0.3


class Backoff:
    """Counts failures in a row. Waits grow from half a second to fifteen, with a jitter of 30 %, so that
    many runs of one instance do not all come back at the same moment."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._failing_since_s: float | None = None

    def reset(self) -> None:
        """It got on: what is tried works, or has come further than ever before."""
        self._failures = 0
        self._failing_since_s = None

    def reached(self) -> None:
        """The other side answers: it is asked again soon, though that alone is no progress."""
        self._failures = min(self._failures, _SOON)

    def excuse(self, waited_s: float) -> None:
        """So long it was waited for something else than what fails."""
        if self._failing_since_s is not None:
            self._failing_since_s += waited_s

    def next_wait_s(self) -> float:
        """To be called once for each failure."""
        if self._failing_since_s is None:
            self._failing_since_s = self._clock()
        wait_s = WAITS_S[min(self._failures, len(WAITS_S) - 1)]
        self._failures += 1
        return wait_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load, guards nothing

    def failing_for_s(self) -> float:
        return 0.0 if self._failing_since_s is None else self._clock() - self._failing_since_s


class HighWaterMarks:
    """How far each of several things has ever come. May be used by several threads."""

    def __init__(self, on_further: Callable[[], None]) -> None:
        self._on_further = on_further
        self._lock = threading.Lock()
        self._furthest: dict[Hashable, int] = {}

    def note(self, what: Hashable, how_far: int) -> None:
        """Calls `on_further` when it has come further than ever."""
        with self._lock:
            is_further = how_far > self._furthest.get(what, 0)
            if is_further:
                self._furthest[what] = how_far
        if is_further:
            self._on_further()
