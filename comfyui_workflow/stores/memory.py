"""Stores in memory only: for tests and for a server without persistence. The file stores of batches and jobs
keep their records in them too."""

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from comfyui_workflow.errors import BatchNotFound, JobNotFound, RunNotFound, StoreError
from comfyui_workflow.runs.batch import Batch
from comfyui_workflow.runs.events import Durability
from comfyui_workflow.runs.job import Job, record_name
from comfyui_workflow.runs.model import OutputFile, Run, idempotency_key_of
from comfyui_workflow.runs.summary import EVERY_RUN, RunSummary
from comfyui_workflow.runs.usage import UsageTotals
from comfyui_workflow.runs.webhook import Delivery
from comfyui_workflow.stores.base import (
    BillableRun,
    Change,
    Document,
    DurationSample,
    InstanceDocuments,
    UnreadableRecord,
    Wanted,
)
from comfyui_workflow.stores.index import KeptRun, RunIndex


class MemoryRunStore:
    def __init__(self) -> None:
        self._runs: dict[str, KeptRun] = {}
        self._index = RunIndex(lambda run_id: self._runs[run_id].summary)
        self._lock = threading.Lock()

    def open(self) -> None:
        pass

    def add(self, run: Run) -> None:
        self.add_all([run])

    def add_all(self, runs: Sequence[Run]) -> None:
        for run in runs:
            self._runs[run.run_id] = KeptRun(run=run)
            self._index.add(run.run_id, run.request.batch_id, is_part=run.request.parent_id is not None)

    def get(self, run_id: str) -> Run | None:
        kept = self._runs.get(run_id)
        return None if kept is None else kept.run

    def inputs(self, run_id: str) -> Mapping[str, Any] | None:
        run = self.get(run_id)
        return None if run is None else run.request.inputs

    def outputs(self, run_id: str) -> Sequence[OutputFile] | None:
        run = self.get(run_id)
        return None if run is None else run.outputs

    def update(self, run_id: str, change: Change, saving: Durability = Durability.STEP) -> Run:
        with self._lock:
            kept = self._runs.get(run_id)
            if kept is None:
                raise RunNotFound(f"Workflow not found: {run_id}")
            kept.run = change(kept.run)
            return kept.run

    def latest(self) -> Run | None:
        return next(map(self.get, self._index.listed_ids()), None)

    def unfinished(self) -> list[Run]:
        return [run for run in reversed(self.page(len(self._runs))) if not run.is_finished]

    def page(self, limit: int, before: str | None = None) -> list[Run]:
        return [self._runs[run_id].run for run_id in self._index.newest_ids(limit, before)]

    def summaries(
        self, limit: int | None = None, before: str | None = None, wanted: Wanted = EVERY_RUN
    ) -> list[RunSummary]:
        return self._index.newest(limit, before, wanted)

    def grouped(
        self, limit: int | None = None, before: str | None = None, wanted: Wanted = EVERY_RUN
    ) -> list[RunSummary]:
        return self._index.grouped(limit, before, wanted)

    def of_batch(self, batch_id: str) -> list[RunSummary]:
        return self._index.of_batch(batch_id)

    def count(self, wanted: Wanted = EVERY_RUN) -> int:
        return self._index.count(wanted)

    def latest_id(self) -> str | None:
        return self._index.latest_id()

    def by_idempotency_key(self, key: str) -> str | None:
        return self._index.by_idempotency_key(key)

    def batch_stamp(self, batch_id: str) -> int | None:
        return None

    def billable_runs(self) -> Sequence[BillableRun]:
        return self.summaries()

    def duration_samples(self, most: int) -> Sequence[DurationSample]:
        newest = (summary for summary in self.summaries() if summary.is_finished and summary.prompt_s)
        return list(itertools.islice(newest, most))[::-1]

    def close(self) -> None:
        pass


class MemoryBatchStore:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._batches: dict[str, Batch] = {}
        self._by_key: dict[str, str] = {}

    def open(self) -> None:
        pass

    def add(self, batch: Batch) -> None:
        key = idempotency_key_of(batch.batch_id)
        with self._lock:
            self._batches[batch.batch_id] = batch
            if key is not None:
                self._by_key[key] = max(batch.batch_id, self._by_key.get(key, ""))

    def get(self, batch_id: str) -> Batch:
        with self._lock:
            found = self._batches.get(batch_id)
        if found is None:
            raise BatchNotFound(f"Batch not found: {batch_id[:100]}")
        return found

    def page(self, limit: int, before: str | None) -> list[str]:
        with self._lock:
            ids = sorted((each for each in self._batches if before is None or each < before), reverse=True)
        return ids[:limit]

    def latest_id(self) -> str | None:
        with self._lock:
            return max(self._batches, default=None)

    def by_idempotency_key(self, key: str) -> str | None:
        return self._by_key.get(key)

    def named(self, part: str) -> frozenset[str]:
        part = part.casefold()
        with self._lock:
            return frozenset(each for each, batch in self._batches.items() if part in batch.name.casefold())

    @property
    def unreadable(self) -> Mapping[str, UnreadableRecord]:
        return {}

    def replace_unreadable(self, batch: Batch) -> None:
        self.add(batch)


class MemoryJobStore:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._names_of_runs: dict[str, str] = {}

    def open(self) -> None:
        pass

    def add(self, job: Job) -> None:
        with self._lock:
            self._put(job)

    def get(self, job_id: str) -> Job:
        job = self._jobs.get(record_name(job_id))
        if job is None:
            raise JobNotFound(f"Job not found: {job_id[:100]}")
        return job

    def of_run(self, run_id: str) -> Job | None:
        name = self._names_of_runs.get(run_id)
        return None if name is None else self._jobs.get(name)

    def all(self) -> list[Job]:
        with self._lock:
            return list(self._jobs.values())

    def update(self, job_id: str, change: Callable[[Job], Job]) -> Job:
        with self._lock:
            changed = change(self.get(job_id))
            self._put(changed)
        return changed

    def remove(self, job_id: str) -> None:
        with self._lock:
            removed = self._jobs.pop(record_name(job_id), None)
            if removed is not None:
                self._names_of_runs.pop(removed.run_id, None)

    @property
    def unreadable(self) -> Mapping[str, UnreadableRecord]:
        return {}

    def replace_unreadable(self, job: Job) -> None:
        self.add(job)

    def _put(self, job: Job) -> None:
        name = record_name(job.job_id)
        known = self._jobs.get(name)
        if known is not None:
            self._names_of_runs.pop(known.run_id, None)
        self._jobs[name] = job
        self._names_of_runs[job.run_id] = name


class MemoryWebhookStore:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deliveries: dict[str, Delivery] = {}
        self._contents: dict[str, bytes] = {}

    def open(self) -> list[Delivery]:
        with self._lock:
            return [self._deliveries[each] for each in sorted(self._deliveries)]

    def add(self, delivery: Delivery, content: bytes) -> None:
        with self._lock:
            self._deliveries[delivery.delivery_id] = delivery
            self._contents[delivery.delivery_id] = content

    def save(self, delivery: Delivery) -> None:
        with self._lock:
            self._deliveries[delivery.delivery_id] = delivery

    def content(self, delivery_id: str) -> bytes:
        with self._lock:
            found = self._contents.get(delivery_id)
        if found is None:
            raise StoreError("The content of the webhook cannot be read: it is not there")
        return found

    def remove(self, delivery_id: str) -> None:
        with self._lock:
            self._deliveries.pop(delivery_id, None)
            self._contents.pop(delivery_id, None)


class MemoryPendingStore:
    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._lock = threading.Lock()

    def add(self, subject_id: str) -> None:
        with self._lock:
            self._ids.add(subject_id)

    def remove(self, subject_id: str) -> None:
        with self._lock:
            self._ids.discard(subject_id)

    def all(self) -> list[str]:
        with self._lock:
            return sorted(self._ids)


class MemoryInstanceStore:
    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._documents = InstanceDocuments()
        self._listeners: tuple[Callable[[], None], ...] = ()

    def open(self) -> None:
        pass

    def read(self) -> InstanceDocuments:
        return self._documents

    @property
    def trouble(self) -> str | None:
        return None

    def update(self, change: Callable[[InstanceDocuments], InstanceDocuments]) -> InstanceDocuments:
        with self._changing:
            before, changed = self._documents, change(self._documents)
            if changed != before:
                self._documents = changed
        if changed != before:
            for listener in self._listeners:
                listener()
        return changed

    def listen(self, callback: Callable[[], None]) -> None:
        self._listeners = (*self._listeners, callback)


class MemoryUsageStore:
    def __init__(self) -> None:
        self._totals = UsageTotals()

    def open(self) -> UsageTotals:
        return self._totals

    def save(self, totals: UsageTotals) -> None:
        self._totals = totals


class MemoryDistributedSettingsStore:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._settings: Document = {}

    def open(self) -> None:
        pass

    def get(self) -> Document:
        return self._settings

    def update(self, change: Callable[[Document], Document]) -> None:
        with self._lock:
            self._settings = change(self._settings)
