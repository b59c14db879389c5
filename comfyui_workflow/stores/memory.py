"""Runs in memory only: for tests, and for a server that is meant to forget."""

import itertools
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from comfyui_workflow.errors import RunNotFound
from comfyui_workflow.runs.events import Saving
from comfyui_workflow.runs.model import OutputFile, Run
from comfyui_workflow.runs.summary import EVERY_RUN, RunSummary
from comfyui_workflow.stores.base import Change, Lesson, Wanted
from comfyui_workflow.stores.index import Catalogue, KeptRun


class MemoryStore:
    def __init__(self) -> None:
        self._runs: dict[str, KeptRun] = {}
        self._catalogue = Catalogue(lambda run_id: self._runs[run_id].summary)
        self._lock = threading.Lock()

    def add(self, run: Run) -> None:
        self.add_all([run])

    def add_all(self, runs: Sequence[Run]) -> None:
        for run in runs:
            self._runs[run.run_id] = KeptRun(run=run)
            self._catalogue.add(run.run_id, run.request.batch_id)

    def get(self, run_id: str) -> Run | None:
        kept = self._runs.get(run_id)
        return None if kept is None else kept.run

    def inputs(self, run_id: str) -> Mapping[str, Any] | None:
        run = self.get(run_id)
        return None if run is None else run.request.inputs

    def outputs(self, run_id: str) -> Sequence[OutputFile] | None:
        run = self.get(run_id)
        return None if run is None else run.outputs

    def update(self, run_id: str, change: Change, saving: Saving = Saving.STEP) -> Run:
        with self._lock:
            kept = self._runs.get(run_id)
            if kept is None:
                raise RunNotFound(f"Workflow not found: {run_id}")
            kept.run = change(kept.run)
            return kept.run

    def latest(self) -> Run | None:
        return next(iter(self.page(1)), None)

    def unfinished(self) -> list[Run]:
        return [run for run in reversed(self.page(len(self._runs))) if not run.is_finished]

    def page(self, limit: int, before: str | None = None) -> list[Run]:
        return [self._runs[run_id].run for run_id in self._catalogue.newest_ids(limit, before)]

    def summaries(
        self, limit: int | None = None, before: str | None = None, wanted: Wanted = EVERY_RUN
    ) -> list[RunSummary]:
        return self._catalogue.newest(limit, before, wanted)

    def grouped(
        self, limit: int | None = None, before: str | None = None, wanted: Wanted = EVERY_RUN
    ) -> list[RunSummary]:
        return self._catalogue.grouped(limit, before, wanted)

    def of_batch(self, batch_id: str) -> list[RunSummary]:
        return self._catalogue.of_batch(batch_id)

    def count(self, wanted: Wanted = EVERY_RUN) -> int:
        return self._catalogue.count(wanted)

    def latest_id(self) -> str | None:
        return self._catalogue.latest_id()

    def by_idempotency_key(self, key: str) -> str | None:
        return self._catalogue.by_idempotency_key(key)

    def batch_stamp(self, batch_id: str) -> int | None:
        return None

    def lessons(self, most: int) -> Sequence[Lesson]:
        newest = (summary for summary in self.summaries() if summary.is_finished and summary.prompt_s)
        return list(itertools.islice(newest, most))[::-1]

    def close(self) -> None:
        pass
