"""Things to do at a time, in one thread that sleeps until the next of them."""

import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from datetime import datetime

from comfyui_workflow.stores.journal import now

log = logging.getLogger(__name__)

LONGEST_SLEEP_S = 3600.0
"""The clock may be set meanwhile."""


class Timer:
    """Every method may be called from any thread."""

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
        """`act` is called in the thread of this, so it must not take long; what it raises is logged."""
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
            except Exception:  # the others must not wait for ever
                log.exception("a bug of this server: a job may go on for too long")

    def _next(self) -> Callable[[], None] | None:
        """None when it may be time to look again."""
        with self._changed:
            sleep_s = LONGEST_SLEEP_S
            if self._due:
                sleep_s = min(sleep_s, (self._due[0][0] - self._clock()).total_seconds())
                if sleep_s <= 0:
                    return heapq.heappop(self._due)[2]
            self._changed.wait(sleep_s)
            return None
