"""Protocols of the stores: one for each kind of record. `files/` and `memory.py` implement all of them, and
`tests/stores/test_<kind>_contract.py` holds every implementation to the same answers.

Each store has `open`, called once before anything else. Every method may be called from any thread.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from comfyui_workflow.runs.batch import Batch
from comfyui_workflow.runs.events import Durability
from comfyui_workflow.runs.job import Job
from comfyui_workflow.runs.model import OutputFile, Run, Stay
from comfyui_workflow.runs.summary import EVERY_RUN, RunFilter, RunSummary
from comfyui_workflow.runs.usage import UsageTotals
from comfyui_workflow.runs.webhook import Delivery

Change = Callable[[Run], Run]
Wanted = RunFilter | Callable[[RunSummary], bool]
Document = Mapping[str, Any]
"""A JSON object."""


@dataclass(frozen=True, kw_only=True)
class UnreadableRecord:
    """A record that was accepted once and cannot be read now."""

    path: str
    """Where it is."""
    reason: str


class DurationSample(Protocol):
    """Fields of a finished run's summary that duration estimates are computed from."""

    @property
    def ssh_connection(self) -> str: ...

    @property
    def instance_id(self) -> str | None: ...

    @property
    def graph_signature(self) -> str | None: ...

    @property
    def prompt_s(self) -> float | None: ...


class BillableRun(Protocol):
    """Fields of a run's summary that costs are computed from."""

    @property
    def run_id(self) -> str: ...

    @property
    def end_time(self) -> datetime | None: ...

    def all_stays(self, at: datetime, /) -> tuple[Stay, ...]: ...


class RunStore(Protocol):
    """Keeps runs, newest last by id."""

    def open(self) -> None:
        """Raises: ConfigurationError."""

    def add(self, run: Run) -> None:
        """Keep a new run. Raises: StoreError when it cannot be saved; then there is no such run."""

    def add_all(self, runs: Sequence[Run]) -> None:
        """Keep new runs, all of them on disk when this returns; of many it is much faster than one by one.
        A power cut before it returns may leave some. Raises: StoreError when one of them cannot be saved;
        then there is none of them."""

    def get(self, run_id: str) -> Run | None: ...

    def inputs(self, run_id: str) -> Mapping[str, Any] | None:
        """Inputs of the run's request. Ten thousand of them are read faster than the runs."""

    def outputs(self, run_id: str) -> Sequence[OutputFile] | None:
        """As for `inputs`."""

    def update(self, run_id: str, change: Change, saving: Durability = Durability.STEP) -> Run:
        """Replace a run by `change(run)`, which is pure and may be called more than once; no two updates of
        one run overlap. Raises: RunNotFound; StoreError when it must be saved and cannot: nothing changed."""

    def latest(self) -> Run | None:
        """The run that was added last."""

    def unfinished(self) -> list[Run]:
        """Oldest first."""

    def page(self, limit: int, before: str | None = None) -> list[Run]:
        """Newest first, at most `limit`, older than the run `before`."""

    def summaries(
        self, limit: int | None = None, before: str | None = None, wanted: Wanted = EVERY_RUN
    ) -> list[RunSummary]:
        """Summaries of the runs that are wanted, newest first, at most `limit`, older than the run `before`.
        No record is read for it."""

    def grouped(
        self, limit: int | None = None, before: str | None = None, wanted: Wanted = EVERY_RUN
    ) -> list[RunSummary]:
        """As `summaries`, but of the runs of one batch only the newest that is wanted; none, where that is
        not older than the run `before`."""

    def of_batch(self, batch_id: str) -> list[RunSummary]:
        """Oldest first."""

    def count(self, wanted: Wanted = EVERY_RUN) -> int: ...

    def latest_id(self) -> str | None:
        """The greatest id there is."""

    def by_idempotency_key(self, key: str) -> str | None:
        """Id of the newest run that was ordered with this key, of all there are, also after a restart. The id
        tells the key (`idempotency_key_of`), so no record is read."""

    def batch_stamp(self, batch_id: str) -> int | None:
        """A number that changes with each change of a run of the batch; None while one is not finished."""

    def billable_runs(self) -> Sequence[BillableRun]:
        """One of each run. Of ten thousand finished ones no record is read, and no summary."""

    def duration_samples(self, most: int) -> Sequence[DurationSample]:
        """The newest finished runs whose prompt told how long it takes, at most `most`, oldest first."""

    def close(self) -> None: ...


class BatchStore(Protocol):
    """Keeps batches, without their runs. Ids sort by age."""

    def open(self) -> None:
        """Raises: ConfigurationError."""

    def add(self, batch: Batch) -> None:
        """Keep a batch, on disk when this returns, in place of what was known of it. Raises: StoreError."""

    def get(self, batch_id: str) -> Batch:
        """Raises: BatchNotFound."""

    def page(self, limit: int, before: str | None) -> list[str]:
        """Ids, newest first, at most `limit`, older than the batch `before`."""

    def latest_id(self) -> str | None:
        """The greatest id there is, also of a batch that cannot be read."""

    def named(self, part: str) -> frozenset[str]:
        """Ids of the batches with `part` in their name, in capitals or not."""

    @property
    def unreadable(self) -> Mapping[str, UnreadableRecord]:
        """Accepted batches that cannot be read, by id."""

    def replace_unreadable(self, batch: Batch) -> None:
        """Keep what was made of the batch's runs in place of a record that cannot be read. Where the disk
        does not take it, it is known all the same, and the next start makes it again."""


class JobStore(Protocol):
    """Keeps jobs. One is found by its id with and without the prefix of synchronous jobs."""

    def open(self) -> None:
        """Raises: ConfigurationError."""

    def add(self, job: Job) -> None:
        """Keep a new job, on disk when this returns. Raises: StoreError."""

    def get(self, job_id: str) -> Job:
        """Raises: JobNotFound."""

    def of_run(self, run_id: str) -> Job | None:
        """The job that this run carries out."""

    def all(self) -> list[Job]: ...

    def update(self, job_id: str, change: Callable[[Job], Job]) -> Job:
        """Replace a job by `change(job)`, on disk when this returns; no two changes of one job overlap.
        Raises: JobNotFound; StoreError, then nothing was changed."""

    def remove(self, job_id: str) -> None:
        """Nothing to do for a job that is not there. Raises: StoreError."""

    @property
    def unreadable(self) -> Mapping[str, UnreadableRecord]:
        """Accepted jobs that cannot be read, by the ids of their runs."""

    def replace_unreadable(self, job: Job) -> None:
        """As for batches."""


class WebhookStore(Protocol):
    """Keeps the deliveries of webhooks, and what each of them sends. The caller works on one delivery in one
    thread at a time."""

    def open(self) -> list[Delivery]:
        """All there are, oldest first; one that cannot be read is among them as given up.
        Raises: ConfigurationError."""

    def add(self, delivery: Delivery, content: bytes) -> None:
        """Keep a new delivery, on disk when this returns. Raises: StoreError; then there is none."""

    def save(self, delivery: Delivery) -> None:
        """Keep a delivery as it is now, on disk when this returns. Raises: StoreError."""

    def content(self, delivery_id: str) -> bytes:
        """The body that is sent. Raises: StoreError."""

    def remove(self, delivery_id: str) -> None:
        """Remove a delivery and its content. What cannot be removed now goes at a later start."""


@dataclass(frozen=True, kw_only=True)
class InstanceDocuments:
    """The named instances as they were written, in order: each a JSON object with its `id`."""

    documents: tuple[Document, ...] = ()
    rest: Document = field(default_factory=dict)
    """Other members of the same document."""


class InstanceStore(Protocol):
    """Keeps the documents of the named instances. Others than this server may change them meanwhile."""

    def open(self) -> None:
        """Raises: ConfigurationError."""

    def read(self) -> InstanceDocuments:
        """The documents as they are now; the same object as long as nothing changes."""

    @property
    def trouble(self) -> str | None:
        """Why what somebody else has written cannot be read, a sentence; `read` tells what was there
        before."""

    def update(self, change: Callable[[InstanceDocuments], InstanceDocuments]) -> InstanceDocuments:
        """Replace the documents by `change(documents)`, on disk when this returns; no two updates overlap.
        Raises: InstancesFileBroken while there is trouble; StoreError; what `change` raises. Then nothing was
        changed."""

    def listen(self, callback: Callable[[], None]) -> None:
        """Call back after each change, whoever made it, with no lock held: in the thread that made the
        change, or in a thread of its own."""


class UsageStore(Protocol):
    """Keeps how long each instance was connected and busy."""

    def open(self) -> UsageTotals:
        """The totals that were saved last. Those that cannot be read begin anew. Raises: ConfigurationError,
        where a newer release has written them."""

    def save(self, totals: UsageTotals) -> None:
        """Trouble is logged, not raised: no run depends on it."""
