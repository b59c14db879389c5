"""Runs in memory only: for tests, and for a server that is meant to forget."""

import threading

from comfyui_workflow.errors import RunNotFound
from comfyui_workflow.runs.events import Saving
from comfyui_workflow.runs.model import Run
from comfyui_workflow.stores import Change


class MemoryStore:
    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._lock = threading.Lock()

    def add(self, run: Run) -> None:
        with self._lock:
            self._runs[run.workflow_id] = run

    def get(self, workflow_id: str) -> Run | None:
        return self._runs.get(workflow_id)

    def update(self, workflow_id: str, change: Change, saving: Saving = Saving.STEP) -> Run:
        with self._lock:
            if workflow_id not in self._runs:
                raise RunNotFound(f"Workflow not found: {workflow_id}")
            self._runs[workflow_id] = change(self._runs[workflow_id])
            return self._runs[workflow_id]

    def latest(self) -> Run | None:
        return next(iter(self.page(1)), None)

    def unfinished(self) -> list[Run]:
        return [run for run in reversed(self.page(len(self._runs))) if not run.is_finished]

    def page(self, limit: int, before: str | None = None) -> list[Run]:
        with self._lock:
            ids = sorted((i for i in self._runs if before is None or i < before), reverse=True)
            return [self._runs[workflow_id] for workflow_id in ids[:limit]]

    def count(self) -> int:
        return len(self._runs)

    def close(self) -> None:
        pass
