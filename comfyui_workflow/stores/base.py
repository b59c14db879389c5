"""Protocols of the stores: one for each kind of record. `files/` and `memory.py` implement all of them, and
`tests/stores/test_<kind>_contract.py` runs the same tests on every implementation.

`open` must be called once before any other method. Every method is thread-safe.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from comfyui_workflow.comfyui.login import Login
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
    """A record that was accepted earlier and cannot be read now."""

    path: str
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
        """Saves a new run. Raises: StoreError if it cannot be saved; then the run does not exist."""

    def add_all(self, runs: Sequence[Run]) -> None:
        """Saves new runs. All are on disk when this returns. For many runs it is much faster than single
        calls of `add`. A power cut before it returns may leave some of them.

        Raises: StoreError if one run cannot be saved; then none of them exists."""

    def get(self, run_id: str) -> Run | None: ...

    def inputs(self, run_id: str) -> Mapping[str, Any] | None:
        """Returns the inputs of the run's request. Reading them is faster than reading the run, which matters
        for ten thousand runs."""

    def outputs(self, run_id: str) -> Sequence[OutputFile] | None:
        """Returns the outputs of the run; faster than reading the run, as for `inputs`."""

    def update(self, run_id: str, change: Change, saving: Durability = Durability.STEP) -> Run:
        """Replaces a run by `change(run)`, which is pure and may be called more than once. Two updates of one
        run never overlap.

        Raises: RunNotFound; StoreError if the change must be saved and cannot be; then nothing changed."""

    def latest(self) -> Run | None:
        """Returns the run that was added last, without parts of others."""

    def unfinished(self) -> list[Run]:
        """Returns all unfinished runs, oldest first."""

    def page(self, limit: int, before: str | None = None) -> list[Run]:
        """Returns at most `limit` runs that are older than the run `before`, newest first."""

    def summaries(
        self, limit: int | None = None, before: str | None = None, wanted: Wanted = EVERY_RUN
    ) -> list[RunSummary]:
        """Returns at most `limit` summaries of the wanted runs that are older than the run `before`, newest
        first. Reads no records."""

    def grouped(
        self, limit: int | None = None, before: str | None = None, wanted: Wanted = EVERY_RUN
    ) -> list[RunSummary]:
        """Returns summaries as `summaries` does, but for each batch only the newest wanted run; no run of a
        batch if that run is not older than the run `before`."""

    def of_batch(self, batch_id: str) -> list[RunSummary]:
        """Returns the summaries of a batch's runs, oldest first."""

    def count(self, wanted: Wanted = EVERY_RUN) -> int: ...

    def latest_id(self) -> str | None:
        """Returns the greatest run id."""

    def by_idempotency_key(self, key: str) -> str | None:
        """Returns the id of the newest run that was requested with this key, also after a restart. Reads no
        records: the run id contains the key (`idempotency_key_of`)."""

    def batch_stamp(self, batch_id: str) -> int | None:
        """Returns a number that changes when a run of the batch changes; None while a run is not finished."""

    def billable_runs(self) -> Sequence[BillableRun]:
        """Returns all runs, with the fields for the costs. For finished runs it reads neither records nor
        summaries."""

    def duration_samples(self, most: int) -> Sequence[DurationSample]:
        """Returns the newest `most` finished runs whose prompt duration is known, oldest first."""

    def close(self) -> None: ...


class BatchStore(Protocol):
    """Keeps batches, without their runs. Batch ids sort by age."""

    def open(self) -> None:
        """Raises: ConfigurationError."""

    def add(self, batch: Batch) -> None:
        """Saves a batch, on disk when this returns. Replaces an earlier version. Raises: StoreError."""

    def get(self, batch_id: str) -> Batch:
        """Raises: BatchNotFound."""

    def page(self, limit: int, before: str | None) -> list[str]:
        """Returns at most `limit` ids of batches that are older than the batch `before`, newest first."""

    def latest_id(self) -> str | None:
        """Returns the greatest batch id, also of batches that cannot be read."""

    def by_idempotency_key(self, key: str) -> str | None:
        """Returns the id of the newest batch that was requested with this key, also after a restart. The id
        contains the key (`idempotency_key_of`)."""

    def named(self, part: str) -> frozenset[str]:
        """Returns the ids of the batches with `part` in their name; ignores case."""

    @property
    def unreadable(self) -> Mapping[str, UnreadableRecord]:
        """Accepted batches that cannot be read, by id."""

    def replace_unreadable(self, batch: Batch) -> None:
        """Replaces an unreadable record by a batch that was rebuilt from its runs. If it cannot be saved, the
        batch is kept in memory, and the next start rebuilds it again."""


class JobStore(Protocol):
    """Keeps jobs. A job is found by its id with and without the prefix of synchronous jobs."""

    def open(self) -> None:
        """Raises: ConfigurationError."""

    def add(self, job: Job) -> None:
        """Saves a new job, on disk when this returns. Raises: StoreError."""

    def get(self, job_id: str) -> Job:
        """Raises: JobNotFound."""

    def of_run(self, run_id: str) -> Job | None:
        """Returns the job that belongs to the run."""

    def all(self) -> list[Job]: ...

    def update(self, job_id: str, change: Callable[[Job], Job]) -> Job:
        """Replaces a job by `change(job)`, on disk when this returns. Two updates of one job never overlap.
        Raises: JobNotFound; StoreError, then nothing was changed."""

    def remove(self, job_id: str) -> None:
        """Removes a job if it exists. Raises: StoreError."""

    @property
    def unreadable(self) -> Mapping[str, UnreadableRecord]:
        """Accepted jobs that cannot be read, by the ids of their runs."""

    def replace_unreadable(self, job: Job) -> None:
        """Replaces an unreadable record by a rebuilt job, as `BatchStore.replace_unreadable`."""


class WebhookStore(Protocol):
    """Keeps the deliveries of webhooks and the body of each. The caller uses one delivery in only one thread
    at a time."""

    def open(self) -> list[Delivery]:
        """Returns all deliveries, oldest first. An unreadable delivery is returned as given up.
        Raises: ConfigurationError."""

    def add(self, delivery: Delivery, content: bytes) -> None:
        """Saves a new delivery, on disk when this returns. Raises: StoreError; then it does not exist."""

    def save(self, delivery: Delivery) -> None:
        """Saves the new state of a delivery, on disk when this returns. Raises: StoreError."""

    def content(self, delivery_id: str) -> bytes:
        """Returns the body that is sent. Raises: StoreError."""

    def remove(self, delivery_id: str) -> None:
        """Removes a delivery and its content. A file that cannot be removed now is removed at a later
        start."""


class PendingStore(Protocol):
    """Keeps the ids of runs and batches whose end must still be notified. An id is on disk before its run is,
    so that a crash between the end of a run and its notification loses nothing."""

    def add(self, subject_id: str) -> None:
        """On disk when this returns. Idempotent. Raises: StoreError."""

    def remove(self, subject_id: str) -> None:
        """Removes an id if it exists. An id that cannot be removed now is found again at the next start."""

    def all(self) -> list[str]:
        """Returns the ids, sorted. Raises: StoreError."""


@dataclass(frozen=True, kw_only=True)
class InstanceDocuments:
    """The named instances in the order of the file; each is a JSON object with an `id`."""

    documents: tuple[Document, ...] = ()
    rest: Document = field(default_factory=dict)
    """Other members of the same document."""


class LoginStore(Protocol):
    """Keeps the logins of the named instances. No record and no document contains a login."""

    def put(self, instance_id: str, login: Login) -> None:
        """On disk when this returns. Raises: StoreError."""

    def get(self, instance_id: str) -> Login | None: ...

    def forget(self, instance_id: str) -> None:
        """Does nothing if there is no login. Raises: StoreError."""


class InstanceStore(Protocol):
    """Keeps the documents of the named instances. Other programs may change them meanwhile."""

    def open(self) -> None:
        """Raises: ConfigurationError."""

    def read(self) -> InstanceDocuments:
        """Returns the current documents; the same object until something changes."""

    @property
    def trouble(self) -> str | None:
        """Sentence: why the current file cannot be read; None if it can be. Meanwhile `read` returns the last
        readable documents."""

    def update(self, change: Callable[[InstanceDocuments], InstanceDocuments]) -> InstanceDocuments:
        """Replaces the documents by `change(documents)`, on disk when this returns. Two updates never
        overlap.

        Raises: InstancesFileBroken while the file cannot be read; StoreError; the errors of `change`. After
        an error nothing was changed."""

    def listen(self, callback: Callable[[], None]) -> None:
        """Registers a callback for each change, also by other programs. It is called without a lock, in the
        thread that made the change or in a thread of its own."""


class UsageStore(Protocol):
    """Keeps how long each instance was connected and busy."""

    def open(self) -> UsageTotals:
        """Returns the totals that were saved last; zero totals if they cannot be read.
        Raises: ConfigurationError if a newer release has written them."""

    def save(self, totals: UsageTotals) -> None:
        """Saves the totals. An error is logged, not raised: no run depends on them."""


class DistributedSettingsStore(Protocol):
    """Keeps the settings that clients of ComfyUI-Distributed have changed: `settings` and `master`."""

    def open(self) -> None:
        """Raises: ConfigurationError if a newer release has written them."""

    def get(self) -> Document: ...

    def update(self, change: Callable[[Document], Document]) -> None:
        """Replaces the settings by `change(settings)`, on disk when this returns. Two updates never overlap.
        Raises: StoreError, then nothing was changed."""


class DataOwnership(Protocol):
    """Exclusive ownership of the data by one server process."""

    @property
    def token(self) -> str:
        """Identifies this process."""

    @property
    def began_at_s(self) -> float:
        """Unix seconds of the start of the ownership."""

    @property
    def are_all_known(self) -> bool:
        """True if the tokens of all earlier owners are known."""

    def knows(self, token: str) -> bool:
        """True if a process with this token has owned the data."""

    def check(self) -> None:
        """Raises: DataTaken if the ownership is lost; StoreError if it cannot be checked."""

    def give_up(self, sentence: str) -> None:
        """Gives up the ownership: nothing is written afterwards. Raises: DataTaken, always."""
