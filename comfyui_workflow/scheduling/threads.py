"""A thread for each run that is being carried out."""

import threading
import time
from collections.abc import Callable


class RunThreads:
    """`carry_out(run_id, should_stop)` returns soon after `should_stop()`."""

    def __init__(self, carry_out: Callable[[str, Callable[[], bool]], None]) -> None:
        self._carry_out = carry_out
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}

    @property
    def are_stopping(self) -> bool:
        return self._stopping.is_set()

    def start(self, run_id: str) -> None:
        with self._lock:
            if self._stopping.is_set():
                return
            previous = self._threads.get(run_id)
            thread = threading.Thread(
                target=self._run, args=(run_id, previous), name=f"run {run_id}", daemon=True
            )
            self._threads[run_id] = thread
            thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Start nothing any more. Whether all came to rest in time."""
        with self._lock:
            self._stopping.set()
            threads = list(self._threads.values())
        until = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _run(self, run_id: str, previous: threading.Thread | None) -> None:
        """A run that is taken up again waits for its own earlier thread: it never has two."""
        if previous is not None:
            previous.join()
        try:
            self._carry_out(run_id, self._stopping.is_set)
        finally:
            with self._lock:
                if self._threads.get(run_id) is threading.current_thread():
                    del self._threads[run_id]
