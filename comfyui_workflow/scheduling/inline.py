"""Carries a run out before `start` returns: for tests that want no threads."""

from collections.abc import Sequence

from comfyui_workflow.scheduling.executor import Execute, FreeTurn, Standing


class InlineExecutor:
    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self._is_stopped = False

    def start(self, run_id: str) -> None:
        if not self._is_stopped:
            self._execute(run_id, FreeTurn(should_stop=lambda: self._is_stopped))

    def look_again(self, run_id: str) -> None:
        pass

    def cancel_waiting(self, run_ids: Sequence[str], reason: str | None) -> list[str]:
        return []

    def standing(self, run_id: str) -> Standing | None:
        return None

    def stop(self, timeout_s: float) -> bool:
        self._is_stopped = True
        return True
