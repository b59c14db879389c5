"""One copy of `/queue` for all runs that wait for a prompt there."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from comfyui_workflow.comfyui.queue import QueueSnapshot

MAX_AGE_S = 1.0
FAST_FAILURE_S = 1.0
INTERVAL_FACTOR = 50
"""`/queue` contains every prompt in full, so the interval is at least 50 times as long as the request
took."""


class SharedQueue:
    """May be called from any thread. One thread requests the queue, and the others wait for its result. An
    error that came fast is raised only in the thread that made the request, and the next thread requests
    again. A slow error (a timeout) is raised in all of them, so that no thread waits for several timeouts in
    a row."""

    def __init__(self, ask: Callable[[], QueueSnapshot]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._pending: Future[QueueSnapshot | None] | None = None
        self._known: QueueSnapshot | None = None
        self._valid_until_s = 0.0

    def __call__(self) -> QueueSnapshot:
        """Returns a snapshot that is at most a second old, older if the queue is long. Raises: what `ask`
        raises."""
        while True:
            with self._lock:
                if self._known is not None and time.monotonic() < self._valid_until_s:
                    return self._known
                pending, is_mine = self._pending, self._pending is None
                if pending is None:
                    pending = self._pending = Future()
            answer = self._request(pending) if is_mine else pending.result()
            if answer is not None:
                return answer

    def _request(self, pending: "Future[QueueSnapshot | None]") -> QueueSnapshot:
        """Waiting threads get None if they may request again. Raises: what `ask` raises."""
        began_s = time.monotonic()
        try:
            found = self._ask()
        except BaseException as error:
            is_fast = time.monotonic() - began_s < FAST_FAILURE_S
            with self._lock:
                self._pending = None
            if is_fast:
                pending.set_result(None)
            else:
                pending.set_exception(error)
            raise
        ended_s = time.monotonic()
        with self._lock:
            self._known = found
            self._valid_until_s = ended_s + max(MAX_AGE_S, INTERVAL_FACTOR * (ended_s - began_s))
            self._pending = None
        pending.set_result(found)
        return found
