"""Executes a run before `start` returns: for tests without threads."""

from collections.abc import Sequence

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.scheduling.executor import Execute, QueueStatus, UnlimitedContext


class InlineExecutor:
    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self._stop = CancelToken()
        self._cancelled: dict[str, CancelToken] = {}

    def start(self, run_id: str) -> None:
        if not self._stop.is_set:
            cancelled = self._cancelled[run_id] = CancelToken()
            try:
                self._execute(run_id, UnlimitedContext(stop=self._stop, cancelled=cancelled))
            finally:
                del self._cancelled[run_id]

    def recheck(self, run_id: str) -> None:
        """Handles only cancelled runs: priorities have no effect here."""
        cancelled = self._cancelled.get(run_id)
        if cancelled is not None:
            cancelled.cancel("the run is cancelled")

    def cancel_waiting(self, run_ids: Sequence[str], reason: str | None) -> list[str]:
        return []

    def queue_status(self, run_id: str) -> QueueStatus | None:
        return None

    def stop(self, timeout_s: float) -> bool:
        self._stop.cancel("the server is stopping")
        return True
