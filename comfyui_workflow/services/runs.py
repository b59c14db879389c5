"""What every API calls: submit, look, cancel, retry."""

from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Lock
from typing import Any, TypeVar

from comfyui_workflow.errors import RunConflict
from comfyui_workflow.runs.active import Underway, underway
from comfyui_workflow.runs.events import (
    CancelRequested,
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
from comfyui_workflow.runs.retryability import retry_refusal
from comfyui_workflow.runs.summary import RunSummary, summary_of
from comfyui_workflow.scheduling.executor import Executor
from comfyui_workflow.services.duration_estimates import DurationEstimates
from comfyui_workflow.stores.base import BillableRun, RunStore, Wanted
from comfyui_workflow.stores.journal import RunJournal, now
from comfyui_workflow.workflows.graph import sink_ids
from comfyui_workflow.workflows.model import Workflow
from comfyui_workflow.workflows.resolve import is_to_convert
from comfyui_workflow.workflows.signature import is_changed_by, signature

MOST_LESSONS = 20_000
"""So many of the newest finished runs tell how long others should take."""
RunOrSummary = TypeVar("RunOrSummary", Run, RunSummary)


class RunService:
    """Every method may be called from any thread, and none waits for an instance."""

    def __init__(self, journal: RunJournal, store: RunStore, executor: Executor) -> None:
        self._journal = journal
        self._store = store
        self._executor = executor
        self._expectations = DurationEstimates(journal)
        self._ordering = Lock()
        self._id_lock = Lock()
        self._last_id_at: datetime | None = None

    def submit(self, request: RunRequest, idempotency_key: str | None = None) -> Run:
        """On disk before this returns. With an idempotency key (16 hexadecimal digits), the run that was
        ordered with it before, if there is one. Raises: StoreError."""
        if idempotency_key is None:
            return self._submit(request)
        with self._ordering:
            before = self._store.by_idempotency_key(idempotency_key)
            return self._submit(request, idempotency_key) if before is None else self.get(before)

    def keep_all(self, requests: Sequence[RunRequest]) -> list[Run]:
        """All on disk before this returns, in this order by their ids, and not started. Raises: StoreError;
        then there is none of them."""
        at, plans, runs = now(), dict[int, _Plan](), []
        id_at = self._id_time(at, len(requests))
        for number, request in enumerate(requests):
            workflow = id(request.workflow)  # one object, where it is one workflow
            if workflow not in plans:
                plans[workflow] = _plan(request.workflow)
            later = timedelta(microseconds=number)
            run_id = new_run_id(id_at + later)
            runs.append(_new_run(request, at + later, plans[workflow], run_id))
        self._journal.add_all(runs)
        return runs

    def start(self, runs: Sequence[Run]) -> None:
        for run in runs:
            self._executor.start(run.run_id)

    def get(self, run_id: str) -> Run:
        """As it is now: one that waits for its turn knows how many go before it. Raises: RunNotFound."""
        return self._as_it_stands(self._journal.get(run_id))

    def wait(self, run_id: str, timeout_s: float) -> Run:
        """The run when it is finished, or as it is when the time is over. Raises: RunNotFound."""
        return self._journal.wait(run_id, lambda run: run.is_finished, timeout_s)

    def inputs(self, run_id: str) -> Mapping[str, Any]:
        """None of a run whose record cannot be read."""
        return self._store.inputs(run_id) or {}

    def outputs(self, run_id: str) -> Sequence[OutputFile]:
        """None of a run whose record cannot be read."""
        return self._store.outputs(run_id) or ()

    def latest(self) -> Run | None:
        return self._store.latest()

    def summaries(self, limit: int | None, before: str | None, wanted: Wanted) -> list[RunSummary]:
        """Newest first, each as it is now."""
        return [self._as_it_stands(summary) for summary in self._store.summaries(limit, before, wanted)]

    def grouped(self, limit: int | None, before: str | None, wanted: Wanted) -> list[RunSummary]:
        """As `summaries`, but of the runs of one batch only the newest that is wanted."""
        return [self._as_it_stands(summary) for summary in self._store.grouped(limit, before, wanted)]

    def billable_runs(self) -> Sequence[BillableRun]:
        """What costs are computed from, for every run."""
        return self._store.billable_runs()

    def count(self, wanted: Wanted) -> int:
        return self._store.count(wanted)

    def expected_s(self, run: Run | RunSummary) -> float | None:
        """How long its prompt should take; None where nobody knows, and for a run that is finished."""
        return self._expectations.expected_s(summary_of(run) if isinstance(run, Run) else run)

    def unfinished_count(self) -> int:
        return len(self._store.unfinished())

    def unfinished(self) -> list[Run]:
        """Oldest first."""
        return self._store.unfinished()

    def images_needed(self) -> list[str]:
        """Input images of runs that are not finished."""
        return [image for run in self._store.unfinished() for image in run.request.input_images]

    def underway(self) -> Underway:
        """Each run as it is now."""
        found = underway(self._store.unfinished())
        return replace(
            found,
            executing=tuple(map(self._as_it_stands, found.executing)),
            waiting=tuple(map(self._as_it_stands, found.waiting)),
        )

    @property
    def turning_points(self) -> int:
        """Grows whenever runs are added, and when one begins, ends, or is to begin again."""
        return self._journal.turning_points

    def cancel(self, run_id: str, reason: str | None = None) -> Run:
        """Ask for it; the run ends when the instance confirms. Raises: RunNotFound; RunConflict when it is
        finished."""
        if self.get(run_id).is_finished:
            raise RunConflict(f"The run is already finished: {run_id}")
        run = self._journal.record(run_id, CancelRequested(reason=reason))
        self._executor.recheck(run_id)
        return run

    def cancel_unless_begun(self, run_id: str) -> bool:
        """Whether the run was in the queue, and this asked it to end. Raises: RunNotFound, StoreError."""
        is_asked = self._journal.is_changed_by(run_id, CancelRequested(unless_begun=True))
        if is_asked:
            self._executor.recheck(run_id)
        return is_asked

    def cancel_all(self, run_ids: Sequence[str], reason: str | None = None) -> int:
        """As `cancel` of each that is not finished; how many those were. When it returns, none of them that
        waited gets its turn any more."""
        waiting = self._executor.cancel_waiting(run_ids, reason)
        others = set(run_ids).difference(waiting)
        done = len(waiting)
        for run_id in (each for each in run_ids if each in others):
            with suppress(RunConflict):  # it has just ended
                self.cancel(run_id, reason)
                done += 1
        return done

    def prioritize(self, run_id: str, priority: int) -> Run:
        """Of runs that wait for the same instance the higher one goes first. Raises: RunNotFound; RunConflict
        when it is finished."""
        if self.get(run_id).is_finished:
            raise RunConflict(f"The run is already finished: {run_id}")
        run = self._journal.record(run_id, PriorityChanged(priority=priority))
        self._executor.recheck(run_id)
        return run

    def _submit(self, request: RunRequest, idempotency_key: str | None = None) -> Run:
        at = now()
        run_id = new_run_id(self._id_time(at), idempotency_key)
        run = _new_run(request, at, _plan(request.workflow), run_id)
        self._journal.add(run)
        self._executor.start(run.run_id)
        return run

    def _id_time(self, at: datetime, count: int = 1) -> datetime:
        """For the ids of so many new runs, a microsecond apart: ids sort by the order in which runs were
        accepted, also where a clock was set back."""
        with self._id_lock:
            known = self._store.latest_id()
            last = max(filter(None, (self._last_id_at, _time_of(known))), default=None)
            first = later_than(last, at)
            self._last_id_at = first + timedelta(microseconds=count - 1)
        return first

    def _as_it_stands(self, run: RunOrSummary) -> RunOrSummary:
        standing = None if run.is_finished else self._executor.standing(run.run_id)
        if standing is None or run.is_cancel_requested:
            return run
        return replace(run, queue_position=standing.position, message=standing.message or run.message)

    def retry(self, run_id: str) -> Run:
        """Take up a failed run where it failed: reach the instance again, fetch what is missing. Never runs
        a prompt again. Raises: RunNotFound; RunConflict where that would be all a retry could do."""
        run = self.get(run_id)
        refusal = retry_refusal(run)
        if refusal is not None:
            raise RunConflict(refusal)
        run = self._journal.record(run_id, RetryRequested())
        self._executor.start(run_id)
        return run

    def learn(self) -> None:
        """From the runs that are finished: how long others should take."""
        self._expectations.learn(self._store.duration_samples(MOST_LESSONS))

    def resume(self, held_back: Container[str] = ()) -> int:
        """Take up every unfinished run but those; how many there were."""
        self._journal.resume_run(run.run_id for run in self._store.unfinished())
        unfinished = [run for run in self._store.unfinished() if run.run_id not in held_back]
        for run in unfinished:
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
    """What is known of a workflow before an instance is asked."""

    nodes: tuple[NodeProgress, ...]
    graph_signature: str


def _plan(workflow: Workflow) -> _Plan:
    graph = workflow.outline
    return _Plan(
        nodes=planned_nodes(graph, sink_ids(graph)),
        graph_signature=signature(graph),
    )


def _new_run(request: RunRequest, at: datetime, plan: _Plan, run_id: str) -> Run:
    is_as_planned = not (is_to_convert(request) or is_changed_by(request.inputs))
    return Run(
        run_id=run_id,
        request=request,
        queue_time=at,
        last_update=at,
        nodes=plan.nodes,
        graph_signature=plan.graph_signature if is_as_planned else None,
        priority=request.priority,
    )
