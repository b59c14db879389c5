"""The executor of a fleet: runs wait here, and each gets its turn where and when there is a slot for it.

A run that waits costs no thread and no connection, and can still be reordered, cancelled, or given to another
instance. One thread decides; an active run is carried out in a thread of its own.

How it works. `SchedulerState` knows who goes next. This reads the records and the directory, tells the state
what has happened, with its lock held, and carries out the instructions that it gets back, with no lock held:
nothing waits for a disk or a network under the lock.
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
from comfyui_workflow.workflows.model_files import models_named
from comfyui_workflow.workflows.resolve import foreseen_graph

log = logging.getLogger(__name__)

TICK_S = 1.0
"""How often it looks at the clock: for runs that may not start yet, and for who waits too long."""
MOST_ENDINGS = MOST_AT_ONCE
"""That are saved before it looks who else may have a turn: ten thousand runs may be cancelled at once."""
_FOR_A_PLACE = "for a place on the instance"
_FOR_FILES = "until the files of another run are fetched, since both may save under the same name"


class Monitors(InstanceStates, Protocol):
    def acquire(self, instance: Instance) -> None:
        """It is looked at from now on, for a while."""

    def report(self, instance_id: str, error: Exception) -> None:
        """A run has met this trouble there."""


@dataclass(frozen=True, kw_only=True)
class DispatchOptions:
    prompts_per_instance: int = 2
    on_the_way_per_instance: int = 1
    move_after_s: float = 120.0
    any_patience_s: float = 86_400.0
    resubmissions_of_running: int = 1


class Dispatcher:
    """Every method may be called from any thread."""

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
            most_on_the_way=options.on_the_way_per_instance,
        )
        self._state = SchedulerState(capacity, timedelta(seconds=options.any_patience_s), self._clock.of)
        self._changed = threading.Condition()
        """Guards the state. Held for no network and no disk."""
        self._looks = 0
        self._is_stale = False
        self._threads = RunThreads(self._carry_out)
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def start(self, run_id: str) -> None:
        """Whoever changes the record after it was read here calls `recheck`."""
        run = self._journal.get(run_id)
        if tag_of(run.request.target) is None:
            self._see_instances()  # the run may name one that was added just now
        last_start = self._last_start(run)
        with self._changed:
            if self._threads.stopping.is_set:
                return
            self._begin_deciding()
            self._state.put(run, self._clock(), last_start)
            self._wake()

    def recheck(self, run_id: str) -> None:
        run = self._journal.get(run_id)
        while True:
            with self._changed:
                self._begin_deciding()
                instructions = self._state.change(run, self._clock())
                self._wake()
            self._carry_out_all(instructions)
            newest = self._journal.get(run_id)
            if _says_the_same(newest, run):  # otherwise a newer change may have come before this one
                return
            run = newest

    def cancel_waiting(self, run_ids: Sequence[str], reason: str | None) -> list[str]:
        with self._changed:
            waiting = self._state.cancel_waiting(run_ids, reason)
            self._wake()
        return waiting

    def standing(self, run_id: str) -> QueueStatus | None:
        with self._changed:
            return self._state.standing(run_id, self._clock())

    def stop(self, timeout_s: float) -> bool:
        self._threads.stop(0)
        self.wake()
        if self._thread.ident:
            self._thread.join(timeout_s)
        return self._threads.stop(timeout_s)

    def wake(self) -> None:
        """The directory or the state of an instance has changed."""
        with self._changed:
            self._wake()

    def _begin_deciding(self) -> None:
        if not self._thread.ident and not self._threads.stopping.is_set:
            self._thread.start()

    def _wake(self) -> None:
        self._is_stale = True
        self._changed.notify_all()

    def _see_instances(self) -> None:
        with self._changed:
            self._looks += 1
            number = self._looks
        instances = self._directory.all()
        with self._changed:
            self._state.see(instances, number)

    def _last_start(self, run: Run) -> datetime | None:
        """The last start of a run of its batch, as far as records tell; None where the state knows better.
        Never in the future: the clock may have been set back since."""
        batch_id = run.request.batch_id
        if batch_id is None or run.request.stagger_s <= 0:
            return None
        with self._changed:
            if self._state.knows_batch(batch_id):
                return None
        last = self._journal.last_start(batch_id)
        return None if last is None else min(self._clock.of(last), self._clock())

    # in the dispatcher's own thread

    def _run(self) -> None:
        due: datetime | None = None
        while not self._threads.stopping.is_set:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_stale or self._threads.stopping.is_set, self._rest_s(due)
                )
                self._is_stale = False
            try:
                due = self._decide()
            except Exception:  # a run that cannot be decided on must not keep all others waiting
                log.exception("a bug of this server: some runs may wait too long")

    def _decide(self) -> datetime | None:
        """When there is something to decide again, if that is known."""
        self._see_instances()
        with self._changed:
            decision = self._state.decide(self._clock(), MOST_ENDINGS)
            self._changed.notify_all()  # those who are preempted
        self._carry_out_all(decision.instructions)
        return decision.wake_at

    def _rest_s(self, due: datetime | None) -> float:
        return TICK_S if due is None else min(TICK_S, max(0.0, (due - self._clock()).total_seconds()))

    # instructions, carried out with no lock held

    def _carry_out_all(self, instructions: Sequence[Instruction]) -> None:
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
        parallel_map(self._end, endings)  # their flushes are one

    def _end(self, end: EndRun) -> None:
        try:
            self._journal.record(end.run_id, end.ending)
        except DataTaken:
            log.info("%s is left to another server", end.run_id)
        except RunNotFound:
            log.warning("%s ended and is not there any more", end.run_id)
        except StoreError as error:
            log.error("%s ended, but that cannot be saved: %s", end.run_id, error)
            with self._changed:
                self._state.end_later(end)

    def _find_models(self, run_id: str) -> None:
        """None of a run that is gone, or of a workflow that is none: that is told by the instance it goes
        to."""
        models = frozenset[str]()
        try:
            run = self._journal.get(run_id)
            models = models_named(run.prepared_graph or foreseen_graph(run.request))
        except (RunNotFound, InvalidRequest) as error:
            log.debug("%s: its models are not known: %s", run_id, error)
        finally:
            with self._changed:
                self._state.know_models(run_id, models)

    # in the thread of a run

    def _carry_out(self, run_id: str) -> None:
        with self._changed:
            active = self._state.active(run_id)
        try:
            self._execute(
                run_id, _DispatchedContext(dispatcher=self, active=active, stop=self._threads.stopping)
            )
        finally:
            self._take_back(run_id)

    def _take_back(self, run_id: str) -> None:
        """Its record is read without the lock: should it be taken up again just now, the state says so."""
        run = self._journal.get(run_id)
        last_start = self._last_start(run)
        with self._changed:
            instructions = self._state.take_back(run, self._clock(), last_start)
            self._wake()
        self._carry_out_all(instructions)

    def placement(self, active: ActiveRun, run: Run) -> Placement | None:
        """An address that was mended in the directory is the new way to the same instance."""
        instance = self._directory.get(active.instance_id) if active.instance_id else None
        return run.placement if instance is None else placement_of(run.request, instance, active.reason)

    def is_instance_gone(self, run: Run) -> bool:
        return run.placement is not None and self._directory.get(run.placement.instance_id) is None

    @contextmanager
    def place(self, active: ActiveRun, abort: CancelToken, may_overwrite: bool) -> Iterator[None]:
        try:
            self._wait_for_slot(active, abort, may_overwrite)
            yield
            self._note_submitted(active)
        finally:
            with self._changed:
                self._state.stop_asking(active.run_id)
                self._changed.notify_all()  # the next one may submit

    def _wait_for_slot(self, active: ActiveRun, abort: CancelToken, may_overwrite: bool) -> None:
        """Raises: Preempted, Stopped."""

        def ask() -> SlotDecision:
            return self._state.ask_for_slot(
                active.run_id, self._clock(), time.monotonic(), may_overwrite=may_overwrite
            )

        with self._changed:
            answer = ask()
        if not answer.is_given:
            message = f"Everything is ready: waiting {_FOR_FILES if answer.is_held else _FOR_A_PLACE}"
            self._journal.record(active.run_id, PhaseEntered(phase=Phase.WAITING, message=message))
            self._wait_until_given(ask, abort)

    def _wait_until_given(self, ask: Callable[[], SlotDecision], abort: CancelToken) -> None:
        with abort.notifying(self._changed), self._changed:
            while not (answer := ask()).is_given:
                if answer.preempted is not None:
                    raise Preempted(answer.preempted)
                abort.check()
                self._changed.wait(answer.asks_again_in_s)

    def _note_submitted(self, active: ActiveRun) -> None:
        """By the graph that was submitted."""
        models = models_named(self._journal.get(active.run_id).graph)
        with self._changed:
            self._state.submitted(active.run_id, models, now())
            self._wake()

    def release_slot(self, active: ActiveRun) -> None:
        with self._changed:
            self._state.leave_slot(active.run_id)
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
        self._see_instances()
        with self._changed:
            meant = self._state.meant(tag)
        for instance in meant:  # one of them may have to take it over
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


def _says_the_same(one: Run, other: Run) -> bool:
    """To the state, of what may change while a run waits."""
    return (one.priority, one.is_cancel_requested) == (other.priority, other.is_cancel_requested)


@dataclass(frozen=True, kw_only=True)
class _DispatchedContext:
    """`executors.Turn`, of one run."""

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

    def place(self, abort: CancelToken, *, may_overwrite: bool = False) -> AbstractContextManager[None]:
        return self.dispatcher.place(self.active, abort, may_overwrite)

    def release_slot(self) -> None:
        self.dispatcher.release_slot(self.active)

    def reason_to_leave(self, run: Run, error: Exception, failing_for_s: float) -> str | None:
        return self.dispatcher.reason_to_leave(self.active, run, error, failing_for_s)
