"""One view of `/queue` for all who wait for a prompt there."""

import threading
import time
from collections.abc import Callable

from comfyui_workflow.comfyui.queue import QueueSnapshot

AGE_S = 1.0
SHARE = 50
"""`/queue` carries every prompt in full: it is asked for at most a fiftieth of the time."""


class QueueView:
    """May be called from any thread. One asks, and the others wait for its answer instead of asking too."""

    def __init__(self, ask: Callable[[], QueueSnapshot]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._known: QueueSnapshot | None = None
        self._valid_until_s = 0.0

    def __call__(self) -> QueueSnapshot:
        """A second old at most, older where it is long."""
        with self._lock:
            if self._known is None or time.monotonic() >= self._valid_until_s:
                began_s = time.monotonic()
                self._known = self._ask()
                took_s = time.monotonic() - began_s
                self._valid_until_s = time.monotonic() + max(AGE_S, SHARE * took_s)
            return self._known
