"""The executor for many instances: runs wait here, and each starts when an instance has a free slot for it.

A waiting run uses no thread and no connection. It can still be reordered, cancelled or assigned to another
instance. One thread makes the decisions. Each active run executes in its own thread.

How it works. `SchedulerState` contains the rules. The dispatcher reads the records and the directory, reports
events to the state with its lock held, and executes the returned instructions without the lock: no code waits
for a disk or a network under the lock.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, assert_never

from comfyui_workflow.concurrency import MOST_AT_ONCE, CancelToken, parallel_map
from comfyui_workflow.errors import DataTaken, InvalidRequest, RunNotFound, StoreError
from comfyui_workflow.instances.model import Instance, placement_of
from comfyui_workflow.runs.events import PhaseEntered
from comfyui_workflow.runs.model import Phase, Placement, Run
from comfyui_workflow.runs.target import tag_of
from comfyui_workflow.scheduling.capacity import Capacity, InstanceStates, Registry
from comfyui_workflow.scheduling.executor import Execute, Preempted, QueueStatus
from comfyui_workflow.scheduling.failover import (
    is_instance_trouble,
    is_refusal,
    may_run_again,
    should_leave,
)
from comfyui_workflow.scheduling.monotonic_clock import SteadyClock
from comfyui_workflow.scheduling.state import (
    ActiveRun,
    EndRun,
    FindModels,
    Instruction,
    MonitorInstance,
    NotifyCancelled,
    NotifyInstanceRemoved,
    Requeue,
    SchedulerState,
    SlotDecision,
    StartRun,
)
from comfyui_workflow.scheduling.threads import RunThreads
from comfyui_workflow.stores.journal import RunJournal, now
from comfyui_workflow.workflows.model_files import referenced_models
from comfyui_workflow.workflows.resolve import preliminary_graph

log = logging.getLogger(__name__)

TICK_S = 1.0
"""Maximum time between two decisions: for runs that may not start yet, and for timeouts."""
MOST_ENDINGS = MOST_AT_ONCE
"""Maximum number of ended runs that are saved between two decisions: ten thousand runs may be cancelled at
once."""
_FOR_A_SLOT = "for a free slot on the instance"
_FOR_FILES = "until the files of another run are fetched, since both may save under the same name"


class Monitors(InstanceStates, Protocol):
    def acquire(self, instance: Instance) -> None:
        """Monitors the instance from now on, for a while."""

    def report(self, instance_id: str, error: Exception) -> None:
        """Reports an error that a run had at the instance."""


@dataclass(frozen=True, kw_only=True)
class DispatchOptions:
    prompts_per_instance: int = 2
    staging_per_instance: int = 1
    move_after_s: float = 120.0
    any_patience_s: float = 86_400.0
    resubmissions_of_running: int = 1


class Dispatcher:
    """Starts runs on many instances. Thread-safe."""

    def __init__(
        self,
        *,
        journal: RunJournal,
        directory: Registry,
        monitors: Monitors,
        execute: Execute,
        options: DispatchOptions,
    ) -> None:
        self._journal = journal
        self._directory = directory
        self._monitors = monitors
        self._execute = execute
        self._options = options
        self._clock = SteadyClock()
        capacity = Capacity(
            monitors,
            most_prompts=options.prompts_per_instance,
            most_staging=options.staging_per_instance,
        )
        self._state = SchedulerState(capacity, timedelta(seconds=options.any_patience_s), self._clock.of)
        self._changed = threading.Condition()
        """Guards the state. Not held during network or disk access."""
        self._refreshes = 0
        self._is_stale = False
        self._threads = RunThreads(self._execute_run)
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def start(self, run_id: str) -> None:
        """If the record changes after it was read here, the thread that changed it calls `recheck`."""
        run = self._journal.get(run_id)
        if tag_of(run.request.target) is None:
            self._update_instances()  # the request may name an instance that was added just now
        last_start = self._last_start(run)
        with self._changed:
            if self._threads.stopping.is_set:
                return
            self._start_thread()
            self._state.put(run, self._clock(), last_start)
            self._wake()

    def recheck(self, run_id: str) -> None:
        run = self._journal.get(run_id)
        while True:
            with self._changed:
                self._start_thread()
                instructions = self._state.change(run, self._clock())
                self._wake()
            self._execute_instructions(instructions)
            newest = self._journal.get(run_id)
            # otherwise a newer change may have been reported before this one
            if _is_same_for_state(newest, run):
                return
            run = newest

    def cancel_waiting(self, run_ids: Sequence[str], reason: str | None) -> list[str]:
        with self._changed:
            waiting = self._state.cancel_waiting(run_ids, reason)
            self._wake()
        return waiting

    def queue_status(self, run_id: str) -> QueueStatus | None:
        with self._changed:
            return self._state.queue_status(run_id, self._clock())

    def stop(self, timeout_s: float) -> bool:
        self._threads.stop(0)
        self.wake()
        if self._thread.ident:
            self._thread.join(timeout_s)
        return self._threads.stop(timeout_s)

    def wake(self) -> None:
        """Call it when the directory or the state of an instance has changed."""
        with self._changed:
            self._wake()

    def _start_thread(self) -> None:
        if not self._thread.ident and not self._threads.stopping.is_set:
            self._thread.start()

    def _wake(self) -> None:
        self._is_stale = True
        self._changed.notify_all()

    def _update_instances(self) -> None:
        with self._changed:
            self._refreshes += 1
            number = self._refreshes
        instances = self._directory.all()
        with self._changed:
            self._state.update_instances(instances, number)

    def _last_start(self, run: Run) -> datetime | None:
        """The last start of a run of its batch, as far as records show it. None if the state already knows
        it. Never in the future, even if the clock was set back since."""
        batch_id = run.request.batch_id
        if batch_id is None or run.request.stagger_s <= 0:
            return None
        with self._changed:
            if self._state.knows_batch(batch_id):
                return None
        last = self._journal.last_start(batch_id)
        return None if last is None else min(self._clock.of(last), self._clock())

    # called in the dispatcher's own thread

    def _run(self) -> None:
        due: datetime | None = None
        while not self._threads.stopping.is_set:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_stale or self._threads.stopping.is_set, self._timeout_s(due)
                )
                self._is_stale = False
            try:
                due = self._decide()
            except Exception:  # an error in one run must not block all others
                log.exception("a bug of this server: some runs may wait too long")

    def _decide(self) -> datetime | None:
        """Returns the time of the next decision, if it is known."""
        self._update_instances()
        with self._changed:
            decision = self._state.decide(self._clock(), MOST_ENDINGS)
            self._changed.notify_all()  # wakes the runs that are preempted
        self._execute_instructions(decision.instructions)
        return decision.wake_at

    def _timeout_s(self, due: datetime | None) -> float:
        return TICK_S if due is None else min(TICK_S, max(0.0, (due - self._clock()).total_seconds()))

    # instructions, executed without the lock

    def _execute_instructions(self, instructions: Sequence[Instruction]) -> None:
        endings: list[EndRun] = []
        for each in instructions:
            match each:
                case StartRun():
                    self._threads.start(each.run_id)
                case EndRun():
                    endings.append(each)
                case Requeue():
                    self.start(each.run_id)
                case FindModels():
                    self._find_models(each.run_id)
                case MonitorInstance():
                    self._monitors.acquire(each.instance)
                case NotifyCancelled():
                    each.run.cancelled.cancel("the run is cancelled")
                case NotifyInstanceRemoved():
                    each.run.instance_gone.cancel("its instance was removed")
                case _:
                    assert_never(each)
        parallel_map(self._record_end, endings)  # in parallel, so that they share one flush

    def _record_end(self, end: EndRun) -> None:
        try:
            self._journal.record(end.run_id, end.ending)
        except DataTaken:
            log.info("%s is left to another server", end.run_id)
        except RunNotFound:
            log.warning("%s ended, but its record no longer exists", end.run_id)
        except StoreError as error:
            log.error("%s ended, but that cannot be saved: %s", end.run_id, error)
            with self._changed:
                self._state.end_later(end)

    def _find_models(self, run_id: str) -> None:
        """Reports an empty set for a deleted run or an invalid workflow. The instance reports that error
        later."""
        models = frozenset[str]()
        try:
            run = self._journal.get(run_id)
            models = referenced_models(run.prepared_graph or preliminary_graph(run.request))
        except (RunNotFound, InvalidRequest) as error:
            log.debug("%s: its models are not known: %s", run_id, error)
        finally:
            with self._changed:
                self._state.set_models(run_id, models)

    # called in the thread of a run

    def _execute_run(self, run_id: str) -> None:
        with self._changed:
            active = self._state.active(run_id)
        try:
            self._execute(
                run_id, _DispatchedContext(dispatcher=self, active=active, stop=self._threads.stopping)
            )
        finally:
            self._deactivate(run_id)

    def _deactivate(self, run_id: str) -> None:
        """Reads the record without the lock. If the run is retried in this moment, the state requeues it."""
        run = self._journal.get(run_id)
        last_start = self._last_start(run)
        with self._changed:
            instructions = self._state.deactivate(run, self._clock(), last_start)
            self._wake()
        self._execute_instructions(instructions)

    def placement(self, active: ActiveRun, run: Run) -> Placement | None:
        """Uses the current address in the directory: it may have been corrected there."""
        instance = self._directory.get(active.instance_id) if active.instance_id else None
        return run.placement if instance is None else placement_of(run.request, instance, active.reason)

    def is_instance_gone(self, run: Run) -> bool:
        return run.placement is not None and self._directory.get(run.placement.instance_id) is None

    @contextmanager
    def submission_slot(self, active: ActiveRun, abort: CancelToken, may_overwrite: bool) -> Iterator[None]:
        try:
            self._wait_for_slot(active, abort, may_overwrite)
            yield
            self._note_submitted(active)
        finally:
            with self._changed:
                self._state.end_request(active.run_id)
                self._changed.notify_all()  # the next run may submit

    @contextmanager
    def submissions_held(self, active: ActiveRun, abort: CancelToken) -> Iterator[None]:
        with abort.notifying(self._changed), self._changed:
            self._changed.wait_for(lambda: abort.is_set or self._state.hold_submissions(active.run_id))
        try:
            abort.check()
            yield
        finally:
            with self._changed:
                self._state.end_request(active.run_id)
                self._changed.notify_all()

    def _wait_for_slot(self, active: ActiveRun, abort: CancelToken, may_overwrite: bool) -> None:
        """Raises: Preempted, Stopped."""

        def request_slot() -> SlotDecision:
            return self._state.request_slot(
                active.run_id, self._clock(), time.monotonic(), may_overwrite=may_overwrite
            )

        with self._changed:
            answer = request_slot()
        if not answer.is_granted:
            message = f"Everything is ready: waiting {_FOR_FILES if answer.waits_for_files else _FOR_A_SLOT}"
            self._journal.record(active.run_id, PhaseEntered(phase=Phase.WAITING, message=message))
            self._wait_until_granted(request_slot, abort)

    def _wait_until_granted(self, request_slot: Callable[[], SlotDecision], abort: CancelToken) -> None:
        with abort.notifying(self._changed), self._changed:
            while not (answer := request_slot()).is_granted:
                if answer.preempted is not None:
                    raise Preempted(answer.preempted)
                abort.check()
                self._changed.wait(answer.retry_in_s)

    def _note_submitted(self, active: ActiveRun) -> None:
        """Reports the models of the submitted graph."""
        models = referenced_models(self._journal.get(active.run_id).graph)
        with self._changed:
            self._state.submitted(active.run_id, models, now())
            self._wake()

    def release_slot(self, active: ActiveRun) -> None:
        with self._changed:
            self._state.release_slot(active.run_id)
            self._wake()

    def reason_to_leave(
        self, active: ActiveRun, run: Run, error: Exception, failing_for_s: float
    ) -> str | None:
        if isinstance(error, Preempted):
            return str(error)
        here = run.placement
        if here is None:
            return None
        if is_instance_trouble(error):
            self._monitors.report(here.instance_id, error)
        if not self._should_leave(run, here, error, failing_for_s):
            return None
        with self._changed:
            refusal = str(error) if is_refusal(error) else None
            self._state.leave_instance(active.run_id, here.instance_id, refusal)
        return f"{here.name}: {str(error).rstrip('.')}; another instance is chosen"

    def _should_leave(self, run: Run, here: Placement, error: Exception, failing_for_s: float) -> bool:
        tag = tag_of(run.request.target)
        if tag is None or not may_run_again(run, self._options.resubmissions_of_running):
            return False
        self._update_instances()
        with self._changed:
            tagged = self._state.with_tag(tag)
        for instance in tagged:  # one of these may have to take over the run
            self._monitors.acquire(instance)
        with self._changed:
            is_another_ready = self._state.is_another_ready(tag, here.instance_id)
        return should_leave(
            run,
            error,
            failing_for_s,
            move_after_s=self._options.move_after_s,
            is_another_ready=is_another_ready,
        )


def _is_same_for_state(one: Run, other: Run) -> bool:
    """Compares only the fields that may change while a run waits and that the state uses."""
    return (one.priority, one.is_cancel_requested) == (other.priority, other.is_cancel_requested)


@dataclass(frozen=True, kw_only=True)
class _DispatchedContext:
    """The `ExecutionContext` of one run."""

    dispatcher: Dispatcher
    active: ActiveRun
    stop: CancelToken

    @property
    def cancelled(self) -> CancelToken:
        return self.active.cancelled

    @property
    def instance_gone(self) -> CancelToken:
        return self.active.instance_gone

    def placement(self, run: Run) -> Placement | None:
        return self.dispatcher.placement(self.active, run)

    def is_instance_gone(self, run: Run) -> bool:
        return self.dispatcher.is_instance_gone(run)

    def submission_slot(
        self, abort: CancelToken, *, may_overwrite: bool = False
    ) -> AbstractContextManager[None]:
        return self.dispatcher.submission_slot(self.active, abort, may_overwrite)

    def submissions_held(self, abort: CancelToken) -> AbstractContextManager[None]:
        return self.dispatcher.submissions_held(self.active, abort)

    def release_slot(self) -> None:
        self.dispatcher.release_slot(self.active)

    def reason_to_leave(self, run: Run, error: Exception, failing_for_s: float) -> str | None:
        return self.dispatcher.reason_to_leave(self.active, run, error, failing_for_s)
