"""Service for runs: submit, read, cancel, prioritize, retry. Every API uses it."""

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import accumulate
from threading import Lock
from typing import Any, TypeVar

from comfyui_workflow.errors import RunConflict, RunNotFound
from comfyui_workflow.runs.active import Underway, underway
from comfyui_workflow.runs.events import (
    CancelRequested,
    NoticeAdded,
    PriorityChanged,
    RetryRequested,
    RunResumed,
)
from comfyui_workflow.runs.model import (
    NodeProgress,
    OutputFile,
    Run,
    RunRequest,
    later_than,
    new_run_id,
    time_of_id,
)
from comfyui_workflow.runs.nodes import planned_nodes
from comfyui_workflow.runs.parts import PartsOrder, PartState
from comfyui_workflow.runs.retryability import retry_refusal
from comfyui_workflow.runs.summary import RunSummary, summary_of
from comfyui_workflow.scheduling.executor import Executor
from comfyui_workflow.services.duration_estimates import DurationEstimates
from comfyui_workflow.services.part_requests import part_request
from comfyui_workflow.stores.base import BillableRun, RunStore, Wanted
from comfyui_workflow.stores.journal import RunJournal, now
from comfyui_workflow.workflows.graph import sink_ids
from comfyui_workflow.workflows.model import Workflow
from comfyui_workflow.workflows.resolve import needs_conversion
from comfyui_workflow.workflows.signature import is_changed_by, signature

MOST_LESSONS = 20_000
"""Number of newest finished runs from which durations are estimated."""
RunOrSummary = TypeVar("RunOrSummary", Run, RunSummary)


class RunService:
    """Service for runs. Thread-safe. No method waits for an instance."""

    def __init__(self, journal: RunJournal, store: RunStore, executor: Executor) -> None:
        self._journal = journal
        self._store = store
        self._executor = executor
        self._estimates = DurationEstimates(journal)
        self._ordering = Lock()
        self._id_lock = Lock()
        self._last_id_at: datetime | None = None

    def submit(
        self, request: RunRequest, idempotency_key: str | None = None, *, api_key: str | None = None
    ) -> Run:
        """Saves and starts a run. It is on disk before this returns.

        `idempotency_key`: 16 hexadecimal digits. If a run was submitted with the same key before, returns
        that run instead. `api_key`: for nodes that call a service of Comfy.org. Raises: StoreError."""
        if idempotency_key is None:
            return self._submit(request, api_key=api_key)
        with self._ordering:
            before = self.submitted_before(idempotency_key)
            return before or self._submit(request, idempotency_key, api_key=api_key)

    def submitted_before(self, idempotency_key: str | None) -> Run | None:
        """Returns the run that was submitted with this key; None without a key."""
        known = None if idempotency_key is None else self._store.by_idempotency_key(idempotency_key)
        return None if known is None else self.get(known)

    def save_all(
        self,
        requests: Sequence[RunRequest],
        api_keys: Sequence[str | None] = (),
        idempotency_key: str | None = None,
    ) -> list[Run]:
        """Saves all runs without starting them. They are on disk before this returns.

        `api_keys`: for nodes that call a service of Comfy.org, one for each request, or none at all.
        `idempotency_key`: makes a single run known under this key. Ids sort in the order of the requests.
        Raises: StoreError; then no run was saved."""
        at, plans, runs, parts = now(), _Plans(), list[Run](), list[Run]()
        counts = [1 + (request.parts.count if request.parts else 0) for request in requests]
        id_at = self._id_time(at, sum(counts))
        for request, first in zip(requests, accumulate(counts, initial=0), strict=False):
            later = timedelta(microseconds=first)
            run_id = new_run_id(id_at + later, idempotency_key)
            run, own = _with_parts(
                _new_run(request, at + later, plans.of(request), run_id), id_at + later, plans
            )
            runs.append(run)
            parts += own
        keys = {run.run_id: key for run, key in zip(runs, api_keys, strict=False) if key is not None}
        keys |= {part.run_id: keys[each] for part in parts if (each := part.request.parent_id) in keys}
        self._journal.add_all([*runs, *parts], keys)
        return runs

    def start(self, runs: Sequence[Run]) -> None:
        """Starts saved runs. Of a run with parts only these are started."""
        for run in runs:
            self._start(run)

    def _start(self, run: Run) -> None:
        if run.waits_for_parts:
            for part in run.current_parts:
                self._executor.start(part.run_id)
        else:
            self._executor.start(run.run_id)

    def add_part(self, parent: Run, part: PartState, without: tuple[str, ...]) -> None:
        """Saves and starts a part that the record of its run names, unless it exists. Its API key and
        credentials are those of the run. Raises: StoreError."""
        if self._store.get(part.run_id) is None:
            run = self.save_part(parent, part, without)
            self._executor.start(run.run_id)

    def save_part(self, parent: Run, part: PartState, without: tuple[str, ...] = ()) -> Run:
        """Saves a part without starting it. Raises: StoreError."""
        secrets = self._journal.url_secrets(parent.run_id)
        order = parent.request.parts or PartsOrder(count=1)
        request = part_request(parent.run_id, parent.request, order, part.number, without)
        request = replace(request, secrets=secrets)
        run = _new_run(request, now(), _plan(request.workflow), part.run_id)
        self._journal.add(replace(run, priority=parent.priority), self._journal.api_key(parent.run_id))
        return run

    def new_part_id(self) -> str:
        """Returns the id of a part that is about to be added."""
        return new_run_id(self._id_time(now()))

    def get(self, run_id: str) -> Run:
        """Returns the current state of a run. A waiting run has its queue position. Raises: RunNotFound."""
        return self._with_queue_status(self._journal.get(run_id))

    def wait(self, run_id: str, timeout_s: float) -> Run:
        """Waits until the run is finished, and returns it. After the timeout, returns its current state.

        Raises: RunNotFound."""
        return self._journal.wait(run_id, lambda run: run.is_finished, timeout_s)

    def inputs(self, run_id: str) -> Mapping[str, Any]:
        """Returns the inputs of a run. Empty if its record cannot be read."""
        return self._store.inputs(run_id) or {}

    def outputs(self, run_id: str) -> Sequence[OutputFile]:
        """Returns the outputs of a run. Empty if its record cannot be read."""
        return self._store.outputs(run_id) or ()

    def latest(self) -> Run | None:
        return self._store.latest()

    def summaries(self, limit: int | None, before: str | None, wanted: Wanted) -> list[RunSummary]:
        """Returns the current summaries of runs, newest first."""
        return [self._with_queue_status(summary) for summary in self._store.summaries(limit, before, wanted)]

    def grouped(self, limit: int | None, before: str | None, wanted: Wanted) -> list[RunSummary]:
        """Like `summaries`, but contains only the newest matching run of each batch."""
        return [self._with_queue_status(summary) for summary in self._store.grouped(limit, before, wanted)]

    def billable_runs(self) -> Sequence[BillableRun]:
        """Returns the data for cost calculation, for every run."""
        return self._store.billable_runs()

    def count(self, wanted: Wanted) -> int:
        return self._store.count(wanted)

    def expected_s(self, run: Run | RunSummary) -> float | None:
        """Returns the expected duration of the prompt in seconds.

        None if unknown, or if the run is finished."""
        return self._estimates.expected_s(summary_of(run) if isinstance(run, Run) else run)

    def unfinished_count(self) -> int:
        return sum(run.request.parent_id is None for run in self._store.unfinished())

    def unfinished(self) -> list[Run]:
        """Returns the unfinished runs, oldest first."""
        return self._store.unfinished()

    def images_needed(self) -> list[str]:
        """Returns the paths of the input files of all unfinished runs."""
        return [image for run in self._store.unfinished() for image in run.request.input_images]

    def underway(self) -> Underway:
        """Returns the unfinished runs, grouped into executing and waiting, each in its current state."""
        found = underway(run for run in self._store.unfinished() if run.request.parent_id is None)
        return replace(
            found,
            executing=tuple(map(self._with_queue_status, found.executing)),
            waiting=tuple(map(self._with_queue_status, found.waiting)),
        )

    @property
    def status_version(self) -> int:
        """A counter that grows when runs are added, and when a run begins, ends or is reopened."""
        return self._journal.status_version

    def cancel(self, run_id: str, reason: str | None = None) -> Run:
        """Requests the cancellation of a run. The run ends when the instance confirms it.

        Raises: RunNotFound; RunConflict if the run is finished."""
        if self.get(run_id).is_finished:
            raise RunConflict(f"The run is already finished: {run_id}")
        run = self._journal.record(run_id, CancelRequested(reason=reason))
        self._recheck(run, lambda part_id: self.cancel(part_id, reason))
        return run

    def _recheck(self, run: Run, change: Callable[[str], object]) -> None:
        """Call it when the run was cancelled or its priority has changed: the same happens to its parts. A
        run that waits for them is not known to the executor, and ends after them."""
        if not run.waits_for_parts:
            self._executor.recheck(run.run_id)
            return
        for part in run.current_parts:
            with suppress(RunConflict, RunNotFound):  # it has finished, or is not saved yet
                change(part.run_id)

    def cancel_if_queued(self, run_id: str) -> bool:
        """Cancels the run if it is still queued. True if this call requested the cancellation.

        Raises: RunNotFound, StoreError."""
        is_requested = self._journal.is_changed_by(run_id, CancelRequested(unless_begun=True))
        if is_requested:
            run = self._journal.get(run_id)
            self._recheck(run, self.cancel)
        return is_requested

    def cancel_all(self, run_ids: Sequence[str], reason: str | None = None) -> int:
        """Cancels each unfinished run, and returns their number.

        When this returns, no run that was waiting can start any more."""
        waiting = self._executor.cancel_waiting(run_ids, reason)
        others = set(run_ids).difference(waiting)
        done = len(waiting)
        for run_id in (each for each in run_ids if each in others):
            with suppress(RunConflict):  # the run has finished in the meantime
                self.cancel(run_id, reason)
                done += 1
        return done

    def add_notice(self, run_id: str, message: str) -> None:
        """Raises: RunNotFound."""
        self._journal.record(run_id, NoticeAdded(message=message))

    def prioritize(self, run_id: str, priority: int) -> Run:
        """Sets the priority. Among runs that wait for the same instance, the highest priority runs first.

        Raises: RunNotFound; RunConflict if the run is finished."""
        if self.get(run_id).is_finished:
            raise RunConflict(f"The run is already finished: {run_id}")
        run = self._journal.record(run_id, PriorityChanged(priority=priority))
        self._recheck(run, lambda part_id: self.prioritize(part_id, priority))
        return run

    def _submit(
        self, request: RunRequest, idempotency_key: str | None = None, *, api_key: str | None = None
    ) -> Run:
        run = self.save_all([request], [api_key], idempotency_key)[0]
        self._start(run)
        return run

    def _id_time(self, at: datetime, count: int = 1) -> datetime:
        """Reserves `count` times for run ids, one microsecond apart, and returns the first.

        Ids sort in the order in which runs were accepted, even if the clock was set back."""
        with self._id_lock:
            known = self._store.latest_id()
            last = max(filter(None, (self._last_id_at, _time_of(known))), default=None)
            first = later_than(last, at)
            self._last_id_at = first + timedelta(microseconds=count - 1)
        return first

    def _with_queue_status(self, run: RunOrSummary) -> RunOrSummary:
        status = None if run.is_finished else self._executor.queue_status(run.run_id)
        if status is None or run.is_cancel_requested:
            return run
        return replace(run, queue_position=status.position, message=status.message or run.message)

    def retry(self, run_id: str) -> Run:
        """Continues a failed run where it failed: reconnects to the instance, fetches missing outputs.

        Never executes a prompt a second time. Raises: RunNotFound; RunConflict if the run has not failed, or
        if only a new execution of the prompt could help."""
        run = self.get(run_id)
        refusal = retry_refusal(run)
        if refusal is not None:
            raise RunConflict(refusal)
        run = self._journal.record(run_id, RetryRequested())
        if not run.waits_for_parts:  # else its parts continue
            self._executor.start(run_id)
        return run

    def learn(self) -> None:
        """Loads the durations of finished runs for the estimates. Called at start."""
        self._estimates.learn(self._store.duration_samples(MOST_LESSONS))

    def resume(self, held_back: Container[str] = ()) -> int:
        """Resumes every unfinished run except those in `held_back`. Returns their number. Called at start."""
        self._journal.resume_run(run.run_id for run in self._store.unfinished())
        unfinished = [run for run in self._store.unfinished() if run.run_id not in held_back]
        for run in (run for run in unfinished if not run.waits_for_parts):
            if run.executes_since is not None:
                self._journal.record(run.run_id, RunResumed())
            self._executor.start(run.run_id)
        return len(unfinished)


def _time_of(run_id: str | None) -> datetime | None:
    try:
        return None if run_id is None else time_of_id(run_id)
    except ValueError:
        return None


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """The properties of a workflow that are known before an instance is contacted."""

    nodes: tuple[NodeProgress, ...]
    graph_signature: str


class _Plans:
    """The plans of several requests. Requests of one batch, and parts of one run, share the workflow
    object."""

    def __init__(self) -> None:
        self._by_workflow: dict[int, _Plan] = {}

    def of(self, request: RunRequest) -> _Plan:
        workflow = request.workflow
        if id(workflow) not in self._by_workflow:
            self._by_workflow[id(workflow)] = _plan(workflow)
        return self._by_workflow[id(workflow)]


def _with_parts(run: Run, id_at: datetime, plans: _Plans) -> tuple[Run, list[Run]]:
    """Returns the run with its parts named, and the parts. Their ids follow that of the run."""
    order = run.request.parts
    if order is None:
        return run, []
    parts = list[Run]()
    for number in range(order.count):
        later = timedelta(microseconds=number + 1)
        request = part_request(run.run_id, run.request, order, number)
        parts.append(_new_run(request, run.queue_time, plans.of(request), new_run_id(id_at + later)))
    states = (PartState(run_id=each.run_id, number=number) for number, each in enumerate(parts))
    return replace(run, parts=tuple(states)), parts


def _plan(workflow: Workflow) -> _Plan:
    """The run of an invalid order may have no workflow."""
    graph = {} if workflow.is_lost else workflow.outline
    return _Plan(
        nodes=planned_nodes(graph, sink_ids(graph)),
        graph_signature=signature(graph),
    )


def _new_run(request: RunRequest, at: datetime, plan: _Plan, run_id: str) -> Run:
    is_unchanged = not (needs_conversion(request) or is_changed_by(request.inputs))
    return Run(
        run_id=run_id,
        request=request,
        queue_time=at,
        last_update=at,
        nodes=plan.nodes,
        graph_signature=plan.graph_signature if is_unchanged else None,
        priority=request.priority,
    )
