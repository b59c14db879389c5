"""Downloads the inputs of runs before they take the place of another run at an instance.

How it works. A run whose inputs are at URLs is not handed to the executor at once: a few threads download its
inputs first. Of the runs that need one server, only some are downloaded at once, so that a slow server holds
back no runs of the others. The run itself repeats that step, with its retries and its error: here an error
only means that the run starts.
"""

import logging
import threading
from collections.abc import Sequence
from functools import partial

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import RunNotFound, WorkflowError
from comfyui_workflow.execution.live_progress import LiveProgress
from comfyui_workflow.execution.storage_steps import StorageSteps
from comfyui_workflow.scheduling.executor import Executor, QueueStatus
from comfyui_workflow.storage.download_queue import DownloadQueue, Taken
from comfyui_workflow.stores.journal import RunJournal

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Number of threads. They are started with the runs that need them."""
AT_ONE_SERVER = 4
"""Number of runs that download from one server at once."""


class InputPrefetcher:
    """An executor in front of another one. Thread-safe."""

    def __init__(
        self, executor: Executor, journal: RunJournal, steps: StorageSteps, live_view: LiveProgress
    ) -> None:
        self._executor = executor
        self._journal = journal
        self._steps = steps
        self._live_view = live_view
        self._stop = CancelToken()
        self._changed = threading.Condition()
        self._queue: DownloadQueue[str] = DownloadQueue(AT_ONE_SERVER)
        self._tokens: dict[str, CancelToken] = {}
        self._threads: list[threading.Thread] = []

    def start(self, run_id: str) -> None:
        run = self._journal.get(run_id)
        if run.is_cancel_requested or not self._steps.needs_inputs(run):
            self._executor.start(run_id)
            return
        with self._changed:
            if self._stop.is_set or run_id in self._tokens:
                return
            self._tokens[run_id] = CancelToken(self._stop)
            self._queue.put(run_id, [each.url for each in run.request.downloads])
            self._changed.notify()
            if len(self._threads) < AT_ONCE:
                name = f"inputs {len(self._threads)}"
                self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
                self._threads[-1].start()

    def recheck(self, run_id: str) -> None:
        """A cancelled run does not wait for a server any more."""
        with self._changed:
            token = self._tokens.get(run_id)
        if token is not None and self._journal.get(run_id).is_cancel_requested:
            token.cancel("the run is cancelled")
            if self._left_queue(run_id):
                self._executor.start(run_id)
        self._executor.recheck(run_id)

    def _left_queue(self, run_id: str) -> bool:
        """Takes a run out of the queue. False if it is not there: a thread has it, or it was handed on."""
        with self._changed:
            is_removed = self._queue.remove(run_id)
            if is_removed:
                del self._tokens[run_id]
            return is_removed

    def cancel_waiting(self, run_ids: Sequence[str], reason: str | None) -> list[str]:
        return self._executor.cancel_waiting(run_ids, reason)

    def queue_status(self, run_id: str) -> QueueStatus | None:
        return self._executor.queue_status(run_id)

    def stop(self, timeout_s: float) -> bool:
        self._stop.cancel("the server stops")
        with self._changed:
            self._changed.notify_all()
        return self._executor.stop(timeout_s)

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            run_id = taken.item
            try:
                self._download(run_id, self._tokens[run_id])
            finally:
                with self._changed:
                    del self._tokens[run_id]
                    self._queue.release(taken)
                    self._changed.notify_all()
            if not self._stop.is_set:
                self._start(run_id)

    def _next(self) -> Taken[str] | None:
        """Waits for the next run. Returns None when the server stops."""
        with self._changed:
            while not self._stop.is_set:
                taken = self._queue.take()
                if taken is not None:
                    return taken
                self._changed.wait()
            return None

    def _download(self, run_id: str, token: CancelToken) -> None:
        try:
            token.check()
            run = self._journal.get(run_id)
            if run.is_finished or run.is_cancel_requested:
                return
            with self._live_view.open(run_id) as live:
                self._steps.download_inputs(run, live, partial(self._journal.record, run_id), token)
        except WorkflowError as error:
            log.info("%s: %s; the run tries it again", run_id, error)
        except Exception:  # the run repeats the step, and fails with it
            log.exception("%s: internal error", run_id)

    def _start(self, run_id: str) -> None:
        try:
            self._executor.start(run_id)
        except RunNotFound as error:
            log.debug("%s", error)
        except Exception:  # the thread must go on, for the other runs
            log.exception("%s: internal error", run_id)
