"""Timer: calls functions at given times, in one thread that sleeps until the next one is due."""

import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from datetime import datetime

from comfyui_workflow.stores.journal import now

log = logging.getLogger(__name__)

LONGEST_SLEEP_S = 3600.0
"""The thread checks the clock at least this often: it may be set in the meantime."""


class Timer:
    """Calls functions at given times. Thread-safe."""

    def __init__(self, clock: Callable[[], datetime] = now) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._due: list[tuple[datetime, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread.ident:
            self._thread.join(timeout_s)

    def at(self, due: datetime, act: Callable[[], None]) -> None:
        """Schedules `act`.

        It is called in the timer thread, so it must return soon. Its exceptions are logged."""
        with self._changed:
            heapq.heappush(self._due, (due, next(self._order), act))
            if self._due[0][2] is act:
                self._changed.notify_all()

    def _run(self) -> None:
        while not self._is_stopping:
            act = self._next()
            if act is None:
                continue
            try:
                act()
            except Exception:  # a failed action must not stop the others
                log.exception("internal error: a time limit of a job may not be enforced")

    def _next(self) -> Callable[[], None] | None:
        """Returns the next due action, or None after a wait: then the caller checks again."""
        with self._changed:
            sleep_s = LONGEST_SLEEP_S
            if self._due:
                sleep_s = min(sleep_s, (self._due[0][0] - self._clock()).total_seconds())
                if sleep_s <= 0:
                    return heapq.heappop(self._due)[2]
            self._changed.wait(sleep_s)
            return None
