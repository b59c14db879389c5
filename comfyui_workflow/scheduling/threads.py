"""One thread for each run that is executed."""

import threading
import time
from collections.abc import Callable

from comfyui_workflow.concurrency import CancelToken


class RunThreads:
    """Starts the threads. `execute(run_id)` must return soon after `stopping` is cancelled."""

    def __init__(self, execute: Callable[[str], None]) -> None:
        self._execute = execute
        self.stopping = CancelToken()
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}

    def start(self, run_id: str) -> None:
        with self._lock:
            if self.stopping.is_set:
                return
            previous = self._threads.get(run_id)
            thread = threading.Thread(
                target=self._run, args=(run_id, previous), name=f"run {run_id}", daemon=True
            )
            self._threads[run_id] = thread
            thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Starts no more threads. Returns True if all threads ended in time."""
        self.stopping.cancel("the server is stopping")
        with self._lock:
            threads = list(self._threads.values())
        until = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _run(self, run_id: str, previous: threading.Thread | None) -> None:
        """A run that is started again waits for its previous thread: it never has two."""
        if previous is not None:
            previous.join()
        try:
            self._execute(run_id)
        finally:
            with self._lock:
                if self._threads.get(run_id) is threading.current_thread():
                    del self._threads[run_id]
