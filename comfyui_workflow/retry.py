"""Backoff between retries of transient failures."""

import random
import threading
import time
from collections.abc import Callable, Hashable

WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
_SOON = 2
"""Index of the longest wait while the other side answers: two seconds."""
JITTER = 0.3


class Backoff:
    """Counts failures in a row and returns the next wait. Waits grow from 0.5 to 15 seconds, with a jitter of
    30 %, so that many runs of one instance do not all retry at the same moment."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._failing_since_s: float | None = None

    def reset(self) -> None:
        """Call it on progress: the operation succeeded, or came further than ever before."""
        self._failures = 0
        self._failing_since_s = None

    def note_response(self) -> None:
        """The other side answers: the next retry comes soon. An answer alone is no progress, so the failing
        time goes on."""
        self._failures = min(self._failures, _SOON)

    def exclude(self, waited_s: float) -> None:
        """Does not count `waited_s` as failing time: the caller waited for something else."""
        if self._failing_since_s is not None:
            self._failing_since_s += waited_s

    def next_wait_s(self) -> float:
        """Returns the wait before the next try. Call it once for each failure."""
        if self._failing_since_s is None:
            self._failing_since_s = self._clock()
        wait_s = WAITS_S[min(self._failures, len(WAITS_S) - 1)]
        self._failures += 1
        return wait_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load, guards nothing

    def failing_for_s(self) -> float:
        """Seconds since the first failure in a row; 0 if the last try succeeded."""
        return 0.0 if self._failing_since_s is None else self._clock() - self._failing_since_s


class HighWaterMarks:
    """The furthest progress of each of several items. Thread-safe."""

    def __init__(self, on_further: Callable[[], None]) -> None:
        self._on_further = on_further
        self._lock = threading.Lock()
        self._furthest: dict[Hashable, int] = {}

    def note(self, item: Hashable, position: int) -> None:
        """Calls `on_further` if `item` has come further than ever."""
        with self._lock:
            is_further = position > self._furthest.get(item, 0)
            if is_further:
                self._furthest[item] = position
        if is_further:
            self._on_further()
