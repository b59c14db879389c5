"""One view of `/queue` for all who wait for a prompt there."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from comfyui_workflow.comfyui.queue import QueueSnapshot

AGE_S = 1.0
SHARE = 50
"""`/queue` carries every prompt in full: it is asked for at most a fiftieth of the time."""


class QueueView:
    """May be called from any thread. One asks, and the others wait for its answer instead of asking too; no
    answer is one for all of them, so that nobody waits for several timeouts one after another."""

    def __init__(self, ask: Callable[[], QueueSnapshot]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._asking: Future[QueueSnapshot] | None = None
        self._known: QueueSnapshot | None = None
        self._valid_until_s = 0.0

    def __call__(self) -> QueueSnapshot:
        """A second old at most, older where it is long. Raises: what `ask` raises."""
        with self._lock:
            if self._known is not None and time.monotonic() < self._valid_until_s:
                return self._known
            asking, is_mine = self._asking, self._asking is None
            if asking is None:
                asking = self._asking = Future()
        if is_mine:
            self._answer(asking)
        return asking.result()

    def _answer(self, asking: "Future[QueueSnapshot]") -> None:
        began_s = time.monotonic()
        try:
            found = self._ask()
        except BaseException as error:  # noqa: BLE001 - it is raised again in everybody who waits
            with self._lock:
                self._asking = None
            asking.set_exception(error)
            return
        ended_s = time.monotonic()
        with self._lock:
            self._known = found
            self._valid_until_s = ended_s + max(AGE_S, SHARE * (ended_s - began_s))
            self._asking = None
        asking.set_result(found)
