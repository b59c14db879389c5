"""The scheduler's state: every unfinished run, the instance of each active run, and the order of the waiting
runs.

How it works. Methods report events, and return instructions as frozen dataclasses. Nothing outside changes a
field. The state uses no locks, threads, network or disk. The owner reads the records before a call, holds its
own lock during the call, and executes the instructions after it has released the lock.

A run that is `put` is in one of four sets:

    delayed    its start time is in the future: staggered, or paused after an error        DelayQueue
    pending    it starts as soon as an instance has room for it                            PendingQueue
    active     a thread executes it, on one instance                                       ActiveRun
    ending     it never starts again, and its end must be recorded                         EndRun

`decide` moves runs on: delayed runs that are due become pending; the head of each group of pending runs
becomes active if its target has room (`StartRun`); runs that no instance can run end (`EndRun`). An active
run requests a slot before it submits its prompt (`request_slot`), so that prompts are submitted one by one in
the order of their runs. While it waits for the slot, it may be preempted. `deactivate` ends the active time:
the run is finished, or it is put again, for another instance or after a pause.

All times that methods receive are from a clock without jumps; `steady` converts a time from a record.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import InvalidAddress
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.retry import Backoff
from comfyui_workflow.runs.events import Event, RunCancelled, RunFailed
from comfyui_workflow.runs.model import Run
from comfyui_workflow.runs.parts import PartOrder
from comfyui_workflow.runs.target import AnyInstance, InstanceId, tag_of
from comfyui_workflow.scheduling.capacity import Capacity, Slots, reasons_sentence, usable_key
from comfyui_workflow.scheduling.choice import choose
from comfyui_workflow.scheduling.executor import QueueStatus
from comfyui_workflow.scheduling.pacing import DelayQueue, Pacing, Stagger
from comfyui_workflow.scheduling.pending_queue import (
    AnyWithTag,
    AtAddress,
    NamedInstance,
    PendingQueue,
    PendingRun,
    QueueTarget,
)
from comfyui_workflow.sessions.session import InstanceKey, key_of

REFUSALS_AGE = timedelta(minutes=1)
"""Refusals of instances are forgotten after this time, because a missing model may have arrived."""


@dataclass(frozen=True, kw_only=True)
class ActiveRun:
    """A run that is executed by a thread."""

    run_id: str
    key: InstanceKey
    instance_id: str | None
    reason: str
    """The reason for the choice of this instance."""
    cancelled: CancelToken = field(default_factory=CancelToken)
    instance_gone: CancelToken = field(default_factory=CancelToken)


@dataclass(frozen=True, kw_only=True)
class StartRun:
    """Execute the run in its own thread, then call `deactivate`."""

    run_id: str


@dataclass(frozen=True, kw_only=True)
class EndRun:
    """Record the end of the run. If it cannot be saved, call `end_later`."""

    run_id: str
    ending: Event


@dataclass(frozen=True, kw_only=True)
class Requeue:
    """Read the record of the run and put it: it was put again while it was active."""

    run_id: str


@dataclass(frozen=True, kw_only=True)
class FindModels:
    """Find the model files of the workflow, report them by `set_models`, and decide again: they affect the
    choice of the instance."""

    run_id: str


@dataclass(frozen=True, kw_only=True)
class MonitorInstance:
    """Monitor the instance: runs wait for it, or use it."""

    instance: Instance


@dataclass(frozen=True, kw_only=True)
class NotifyCancelled:
    """Wake the thread of the run: the run is cancelled."""

    run: ActiveRun


@dataclass(frozen=True, kw_only=True)
class NotifyInstanceRemoved:
    """Wake the thread of the run: its instance was removed."""

    run: ActiveRun


Instruction = (
    StartRun | EndRun | Requeue | FindModels | MonitorInstance | NotifyCancelled | NotifyInstanceRemoved
)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The instructions to execute now. `wake_at` is the time of the next decision, if it is known."""

    instructions: tuple[Instruction, ...]
    wake_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class SlotDecision:
    """Tells if a run may submit its prompt now. If not, it requests again when something has changed, or
    after `retry_in_s`. If `preempted` has a sentence, the run leaves its instance."""

    is_granted: bool
    retry_in_s: float | None = None
    waits_for_files: bool = False
    """It waits only for the files of another run to be downloaded."""
    preempted: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Queued:
    """A run that is not active, as it was ordered. `target` is the target of the request."""

    run_id: str
    priority: int
    target: QueueTarget
    stagger: Stagger | None


@dataclass(kw_only=True)
class _ActiveEntry:
    """The changeable data of an active run."""

    run: ActiveRun
    priority: int
    target: AnyWithTag | None
    """The target of a run for `any`; else None."""
    stagger: Stagger | None = None
    """Set until the run has submitted its prompt, if its batch is staggered."""
    preempted: str | None = None
    needs_pause: bool = False
    is_requeued: bool = False
    """The run was put while it was active."""


class SchedulerState:
    """Rules and state of the scheduler. Not thread-safe: the owner holds a lock."""

    def __init__(
        self,
        capacity: Capacity,
        any_patience: timedelta,
        steady: Callable[[datetime], datetime] = lambda at: at,
    ) -> None:
        self._capacity = capacity
        self._any_patience = any_patience
        self._steady = steady
        self._seen = 0
        self._queued: dict[str, _Queued] = {}
        """The runs that are pending or delayed."""
        self._pending = PendingQueue()
        self._delayed = DelayQueue()
        self._active_entries: dict[str, _ActiveEntry] = {}
        self._starts: list[StartRun] = []
        self._endings: list[EndRun] = []
        self._before_start_time: set[str] = set()
        """Staggered runs whose start time is in the future."""
        self._were_delayed: set[str] = set()
        """Runs that have waited for their start time once. They do not wait again, even if the clock was set
        back."""
        self._pacing = Pacing()
        self._models: dict[str, frozenset[str]] = {}
        self._refusals: dict[str, dict[str, str]] = {}
        self._refusals_since: datetime | None = None
        self._pauses: dict[str, Backoff] = {}
        self._none_ready_since: dict[AnyWithTag, datetime] = {}

    # events

    def update_instances(self, instances: Sequence[Instance], number: int) -> None:
        """Replaces the list of instances. `number` increases with each read of the directory: a late result
        of an older read is ignored."""
        if number > self._seen:
            self._seen = number
            self._capacity.update_instances(instances)

    def put(self, run: Run, at: datetime, last_start: datetime | None = None) -> None:
        """Adds a run in the state of its record: active if ComfyUI may have its prompt, else delayed or
        pending. `last_start`: the last start of a run of its batch, needed if `knows_batch` returns False."""
        if run.run_id in self._active_entries:
            self._active_entries[run.run_id].is_requeued = True
            return
        if run.is_finished:
            return
        starts_at = self._starts_at(run, at)
        try:
            if run.prompt_id is not None or run.are_outputs_known:
                self._resume(run)
            elif run.is_cancel_requested:
                self._endings.append(EndRun(run_id=run.run_id, ending=RunCancelled()))
            else:
                self._queue(_queued(run), last_start, starts_at if starts_at and starts_at > at else None)
        except InvalidAddress as error:
            failed = RunFailed(code=error.code, message=str(error))
            self._endings.append(EndRun(run_id=run.run_id, ending=failed))

    def change(self, run: Run, at: datetime) -> tuple[Instruction, ...]:
        """Call it after the run was cancelled or its priority changed. A cancelled run that was not put
        before ends too."""
        entry = self._active_entries.get(run.run_id)
        if entry is not None:
            entry.priority = run.priority
            return (NotifyCancelled(run=entry.run),) if run.is_cancel_requested else ()
        if run.is_cancel_requested and run.run_id in self._queued:
            self._end(run.run_id, RunCancelled())
        elif run.is_cancel_requested:
            self.put(run, at)
        elif run.run_id in self._queued:
            self._queued[run.run_id] = replace(self._queued[run.run_id], priority=run.priority)
            if run.run_id in self._pending:
                self._make_pending(run.run_id)
        return ()

    def cancel_waiting(self, run_ids: Sequence[str], reason: str | None) -> list[str]:
        """Ends the waiting runs. Returns their ids, and the ids of runs that are already ending."""
        ending = {each.run_id for each in self._endings}
        waiting = [each for each in run_ids if each in self._queued]
        for run_id in waiting:
            self._end(run_id, RunCancelled(message=reason))
        return [*waiting, *(each for each in run_ids if each in ending)]

    def deactivate(
        self, run: Run, at: datetime, last_start: datetime | None = None
    ) -> tuple[Instruction, ...]:
        """Call it when the thread of the run returns. An unfinished run has left its instance and is put
        again. After an error of the instance it pauses first, so that an error that occurs everywhere does
        not cause an endless loop."""
        entry = self._active_entries.pop(run.run_id)
        self._capacity.slots_of(entry.run.key).leave(run.run_id)
        if run.is_finished:
            self._forget(run.run_id)
            return (Requeue(run_id=run.run_id),) if entry.is_requeued else ()
        if entry.needs_pause and run.prompt_id is None and not run.is_cancel_requested:
            patience = self._pauses.setdefault(run.run_id, Backoff())
            paused_until = at + timedelta(seconds=patience.next_wait_s())
            self._queue(_queued(run), last_start, paused_until, is_pause=True)
        else:
            self.put(run, at, last_start)
        return ()

    def leave_instance(self, run_id: str, instance_id: str, refusal: str | None) -> None:
        """The active run leaves the instance. `refusal` is the reason if the instance cannot run it. None
        means another error; then the run pauses before it goes to another instance."""
        if refusal is None:
            self._active_entries[run_id].needs_pause = True
        else:
            self._refusals.setdefault(run_id, {})[instance_id] = refusal

    def end_later(self, ending: EndRun) -> None:
        """Call it when the end could not be recorded."""
        self._endings.append(ending)

    def set_models(self, run_id: str, models: frozenset[str]) -> None:
        if run_id in self._queued:
            self._models[run_id] = models

    # the slot of an active run

    def request_slot(self, run_id: str, at: datetime, at_s: float, *, may_overwrite: bool) -> SlotDecision:
        """Requests the submission slot. The caller calls `end_request` when the prompt was submitted, or
        could not be. A run that comes too soon after another run of its batch does not enter the request, and
        blocks no other run. `at_s` is monotonic."""
        entry, slots = self._active_entries[run_id], self._slots(run_id)
        due_in_s = self._submission_due_in_s(entry, at)
        if not due_in_s and slots.request_slot(
            run_id, self._capacity.most_prompts, at_s, may_overwrite=may_overwrite
        ):
            if entry.stagger is not None:
                self._pacing.submitted(entry.stagger, at)
                entry.stagger = None
            return SlotDecision(is_granted=True)
        return SlotDecision(
            is_granted=False,
            retry_in_s=due_in_s or slots.head_start_left_s(run_id, at_s),
            waits_for_files=slots.waits_for_files(run_id),
            preempted=entry.preempted,
        )

    def submitted(self, run_id: str, models: frozenset[str], at: datetime) -> None:
        """Call it when the prompt was submitted. It is our last prompt there, so its model files are in the
        memory of the instance. `at` is a time of the wall clock."""
        self._slots(run_id).set_loaded_models(models, at)

    def end_request(self, run_id: str) -> None:
        self._slots(run_id).end_request(run_id)

    def release_slot(self, run_id: str) -> None:
        """Call it when the prompt no longer executes."""
        self._slots(run_id).release_slot(run_id)

    # queries

    def active(self, run_id: str) -> ActiveRun:
        return self._active_entries[run_id].run

    def knows_batch(self, batch_id: str) -> bool:
        return self._pacing.knows(batch_id)

    def allowed(self, target: AnyWithTag) -> list[Instance]:
        return self._capacity.allowed(target)

    def is_another_ready(self, target: AnyWithTag, instance_id: str) -> bool:
        return any(each.id != instance_id for each, _ in self._capacity.ready(target))

    def queue_status(self, run_id: str, at: datetime) -> QueueStatus | None:
        pending = self._pending.get(run_id)
        if pending is not None:
            position = self._capacity.position(pending, self._pending.ahead_of(pending))
            return QueueStatus(position=position, message=self._why_pending(pending, at))
        if run_id in self._active_entries:
            slots = self._slots(run_id)
            return (
                QueueStatus(position=slots.ahead_of(run_id), message=None)
                if slots.is_requesting(run_id)
                else None
            )
        starts_at = self._delayed.get(run_id)
        return None if starts_at is None else self._delayed_status(run_id, starts_at)

    # deciding

    def decide(self, at: datetime, most_endings: int) -> Decision:
        """Makes all decisions that are possible now. At most `most_endings` runs end in one decision, because
        ten thousand may be cancelled together."""
        for run_id in self._delayed.take_due(at):
            if run_id in self._before_start_time:
                self._before_start_time.discard(run_id)
                self._were_delayed.add(run_id)
            self._make_pending(run_id)
        lookups = self._admit_all(at)
        self._end_unrunnable(at)
        self._preempt(at)
        self._forget_old_refusals(at)
        starts, self._starts = self._starts, []
        endings = self._endings[:most_endings]
        del self._endings[:most_endings]
        is_more_to_do = bool(lookups) or len(endings) == most_endings
        return Decision(
            instructions=(
                *self._monitor_instructions(),
                *self._removal_instructions(),
                *starts,
                *endings,
                *lookups,
            ),
            wake_at=at if is_more_to_do else self._next_due(at),
        )

    def _admit_all(self, at: datetime) -> tuple[FindModels, ...]:
        """Starts all pending runs that have room. Returns the runs whose models must be known first; no other
        run overtakes them meanwhile."""
        while True:
            heads = [head for head in self._pending.heads() if self._is_due(head, at)]
            unknown = tuple(FindModels(run_id=head.run_id) for head in heads if self._needs_models(head))
            if unknown or not any(self._admit(head, at) for head in heads):
                return unknown

    def _needs_models(self, head: PendingRun) -> bool:
        if not isinstance(head.target, AnyWithTag) or head.run_id in self._models:
            return False
        return any(each.loaded for each in self._capacity.candidates(head.target, head.refused_by))

    def _admit(self, head: PendingRun, at: datetime) -> bool:
        """Returns True if the run was started or ended."""
        match head.target:
            case AnyWithTag():
                return self._admit_to_best(head, head.target, at)
            case NamedInstance():
                instance = self._capacity.instance(head.target.instance_id)
                if instance is not None:
                    return self._admit_to(head, instance, "the request says so", at)
                gone = RunFailed(code="instance_not_found", message="Its instance was removed")
                self._end(head.run_id, gone)
                return True
            case AtAddress():
                return self._activate(head, head.target.key, None, "", at)

    def _is_due(self, head: PendingRun, at: datetime) -> bool:
        due = self._admission_at(head)
        return due is None or due <= at

    def _admission_at(self, head: PendingRun) -> datetime | None:
        return None if head.stagger is None else self._pacing.admission_at(head.stagger)

    def _admit_to_best(self, head: PendingRun, target: AnyWithTag, at: datetime) -> bool:
        candidates = self._capacity.candidates(target, head.refused_by)
        if not candidates or self._capacity.is_look_due(target, head.refused_by, at):
            return False
        choice = choose(candidates, self._models.get(head.run_id, frozenset()))
        return self._admit_to(head, choice.instance, choice.reason, at)

    def _admit_to(self, run: PendingRun, instance: Instance, reason: str, at: datetime) -> bool:
        key = usable_key(instance)
        return key is not None and self._activate(run, key, instance.id, reason, at)

    def _activate(
        self, run: PendingRun, key: InstanceKey, instance_id: str | None, reason: str, at: datetime
    ) -> bool:
        if not self._capacity.has_room(key):
            return False
        self._unqueue(run.run_id)
        self._capacity.slots_of(key).stage(run.run_id, run.order)
        active = ActiveRun(run_id=run.run_id, key=key, instance_id=instance_id, reason=reason)
        target = run.target if isinstance(run.target, AnyWithTag) else None
        self._add_active(_ActiveEntry(run=active, priority=run.priority, target=target, stagger=run.stagger))
        if target is not None and target.parent_id is not None:
            self._capacity.slots_of(key).parents[run.run_id] = target.parent_id
        if run.stagger is not None:
            self._pacing.admitted(run.stagger, at)
        return True

    def _resume(self, run: Run) -> None:
        """Raises: InvalidAddress."""
        here = run.placement
        instance = self._capacity.instance(here.instance_id) if here else None
        key = (usable_key(instance) if instance else None) or key_of(run)
        slots = self._capacity.slots_of(key)
        slots.protect_files(run.run_id)  # it is no longer known how its nodes name files
        if not run.are_outputs_known:
            slots.take_slot(run.run_id)
        self._unqueue(run.run_id)
        active = ActiveRun(
            run_id=run.run_id,
            key=key,
            instance_id=here.instance_id if here else None,
            reason=here.reason if here else "",
        )
        if run.is_cancel_requested:
            active.cancelled.cancel("the run is cancelled")
        target = any_target_of(run)
        self._add_active(_ActiveEntry(run=active, priority=run.priority, target=target))
        if run.request.parent_id is not None:
            slots.parents[run.run_id] = run.request.parent_id

    def _add_active(self, entry: _ActiveEntry) -> None:
        self._active_entries[entry.run.run_id] = entry
        self._starts.append(StartRun(run_id=entry.run.run_id))

    def _end_unrunnable(self, at: datetime) -> None:
        """Ends runs for `any` if every instance with the tag has refused them, or if none was ready for too
        long."""
        heads = list(self._heads_for_any())
        waiting = {target for _, target in heads}
        for target in [each for each in self._none_ready_since if each.parent_id and each not in waiting]:
            del self._none_ready_since[target]
        for head, target in heads:
            allowed = self._capacity.allowed(target)
            is_refused = allowed and {each.id for each in allowed} <= head.refused_by
            is_too_late = self._is_patience_over(target, at)
            if is_refused or is_too_late:
                for run in self._pending.group(head):
                    self._end(run.run_id, self._no_instance(run) if is_too_late else self._refusal(run))

    def _heads_for_any(self) -> Iterator[tuple[PendingRun, AnyWithTag]]:
        for head in self._pending.heads():
            if isinstance(head.target, AnyWithTag):
                yield head, head.target

    def _is_patience_over(self, target: AnyWithTag, at: datetime) -> bool:
        if any(True for _ in self._capacity.ready(target)):
            self._none_ready_since.pop(target, None)
            return False
        return at - self._none_ready_since.setdefault(target, at) > self._any_patience

    def _no_instance(self, run: PendingRun) -> RunFailed:
        why = self._capacity.why_waiting(run, self._refusals.get(run.run_id, {}))
        return RunFailed(code="no_instance", message=f"No instance took it. {why}")

    def _refusal(self, run: PendingRun) -> RunFailed:
        refusals = self._refusals.get(run.run_id, {})
        named = {each.name: refusals[each.id] for each in self._capacity.instances if each.id in refusals}
        message = f"No instance can run the workflow. {reasons_sentence(named)}"
        return RunFailed(code="invalid_workflow", message=message)

    def _preempt(self, at: datetime) -> None:
        """Preempts ready runs that wait for a slot, if another instance is better for them or another run
        goes first."""
        heads = [head for head in self._pending.heads() if self._is_due(head, at)]
        for entry in self._active_entries.values():
            if entry.preempted is None and self._slots(entry.run.run_id).is_requesting(entry.run.run_id):
                entry.preempted = self._reason_to_preempt(entry, heads)

    def _reason_to_preempt(self, entry: _ActiveEntry, heads: list[PendingRun]) -> str | None:
        key = entry.run.key
        higher = (head for head in heads if head.priority > entry.priority)
        if any(key in self._capacity.keys_for(head.target) for head in higher):
            return "A run of higher priority goes first"
        if entry.target is None:
            return None
        if all(each != key for _, each in self._capacity.ready(entry.target)):
            return "The instance is away"
        refused_by = frozenset(self._refusals.get(entry.run.run_id, ()))
        is_another_idle = any(each.ahead == 0 for each in self._capacity.candidates(entry.target, refused_by))
        return "Another instance has nothing to do" if is_another_idle and not heads else None

    def _forget_old_refusals(self, at: datetime) -> None:
        """Forgets the refusals of pending runs after `REFUSALS_AGE`."""
        if self._refusals_since is None or not self._refusals:
            self._refusals_since = at
        if at - self._refusals_since < REFUSALS_AGE:
            return
        self._refusals_since = at
        for run_id in [each for each in self._refusals if each in self._pending]:
            del self._refusals[run_id]
            self._make_pending(run_id)

    def _monitor_instructions(self) -> tuple[MonitorInstance, ...]:
        """Monitors the instances that runs wait for or use."""
        targets = {head.target for head in self._pending.heads() if isinstance(head.target, AnyWithTag)}
        tagged = (each for target in targets for each in self._capacity.allowed(target))
        used = (
            self._capacity.instance(each.run.instance_id)
            for each in self._active_entries.values()
            if each.run.instance_id
        )
        wanted = {each.id: each for each in (*tagged, *used) if each is not None}
        return tuple(MonitorInstance(instance=each) for each in wanted.values())

    def _removal_instructions(self) -> tuple[NotifyInstanceRemoved, ...]:
        """Notifies active runs whose named instance was removed."""
        active = [entry.run for entry in self._active_entries.values() if not entry.run.instance_gone.is_set]
        return tuple(
            NotifyInstanceRemoved(run=each)
            for each in active
            if each.instance_id is not None and self._capacity.instance(each.instance_id) is None
        )

    def _next_due(self, at: datetime) -> datetime | None:
        """The next time at which a run may start that may not start now."""
        admissions = [self._admission_at(head) for head in self._pending.heads()]
        return min(
            (due for due in (self._delayed.soonest, *admissions) if due is not None and due > at),
            default=None,
        )

    # helpers

    def _starts_at(self, run: Run, at: datetime) -> datetime | None:
        """The start time of a staggered run. If the clock was set back to before the run was ordered, the
        remaining delay is unknown: then only the interval between two starts applies."""
        if run.request.not_before is None or run.run_id in self._were_delayed:
            return None
        if self._steady(run.queue_time) > at:
            return None
        return self._steady(run.request.not_before)

    def _submission_due_in_s(self, entry: _ActiveEntry, at: datetime) -> float:
        """0 if the run may submit now."""
        due = None if entry.stagger is None else self._pacing.submission_at(entry.stagger)
        return 0.0 if due is None else max(0.0, (due - at).total_seconds())

    def _queue(
        self,
        queued: _Queued,
        last_start: datetime | None,
        starts_at: datetime | None,
        *,
        is_pause: bool = False,
    ) -> None:
        self._unqueue(queued.run_id)
        self._queued[queued.run_id] = queued
        if queued.stagger is not None:
            self._pacing.begin(queued.stagger.batch_id, last_start)
        if starts_at is None:
            self._make_pending(queued.run_id)
            return
        if not is_pause:
            self._before_start_time.add(queued.run_id)
        self._delayed.add(queued.run_id, starts_at)

    def _unqueue(self, run_id: str) -> None:
        self._queued.pop(run_id, None)
        self._pending.remove(run_id)
        self._delayed.remove(run_id)
        self._models.pop(run_id, None)

    def _make_pending(self, run_id: str) -> None:
        """Replaces an earlier entry of the run."""
        queued = self._queued[run_id]
        self._pending.add(
            PendingRun(
                run_id=run_id,
                priority=queued.priority,
                target=self._resolved(queued.target),
                refused_by=frozenset(self._refusals.get(run_id, ())),
                stagger=queued.stagger,
            )
        )

    def _resolved(self, target: QueueTarget) -> QueueTarget:
        """The address of an ssh string may belong to a named instance."""
        instance = self._capacity.instance_at(target.key) if isinstance(target, AtAddress) else None
        return target if instance is None else NamedInstance(instance_id=instance.id)

    def _slots(self, run_id: str) -> Slots:
        return self._capacity.slots_of(self._active_entries[run_id].run.key)

    def _why_pending(self, run: PendingRun, at: datetime) -> str:
        due = self._admission_at(run)
        if due is not None and due > at:
            return f"The next run of its batch is to be started at {due:%H:%M:%S} UTC"
        return self._capacity.why_waiting(run, self._refusals.get(run.run_id, {}))

    def _delayed_status(self, run_id: str, starts_at: datetime) -> QueueStatus:
        """The status of a staggered run, or of a run that pauses after an error. The latter has its own
        message."""
        is_staggered = run_id in self._before_start_time
        message = f"To be started at {starts_at:%H:%M:%S} UTC" if is_staggered else None
        return QueueStatus(position=len(self._pending), message=message)

    def _end(self, run_id: str, ending: Event) -> None:
        self._unqueue(run_id)
        self._forget(run_id)
        self._endings.append(EndRun(run_id=run_id, ending=ending))

    def _forget(self, run_id: str) -> None:
        self._before_start_time.discard(run_id)
        self._were_delayed.discard(run_id)
        self._refusals.pop(run_id, None)
        self._pauses.pop(run_id, None)


def _queued(run: Run) -> _Queued:
    """Raises: InvalidAddress."""
    return _Queued(run_id=run.run_id, priority=run.priority, target=_target_of(run), stagger=_stagger_of(run))


def _target_of(run: Run) -> QueueTarget:
    """Raises: InvalidAddress."""
    match run.request.target:
        case AnyInstance(tag=tag):
            return _any_target(tag, run.request.part)
        case InstanceId(instance_id=instance_id):
            return NamedInstance(instance_id=instance_id)
        case _:
            return AtAddress(key=key_of(run))


def any_target_of(run: Run) -> AnyWithTag | None:
    """The target of a run for `any`; None for other runs."""
    tag = tag_of(run.request.target)
    return None if tag is None else _any_target(tag, run.request.part)


def _any_target(tag: str, part: PartOrder | None) -> AnyWithTag:
    if part is None:
        return AnyWithTag(tag=tag)
    return AnyWithTag(
        tag=tag, among=part.among, without=part.without, first=part.first, parent_id=part.parent_id
    )


def _stagger_of(run: Run) -> Stagger | None:
    batch_id, seconds = run.request.batch_id, run.request.stagger_s
    return Stagger(batch_id, seconds) if batch_id is not None and seconds > 0 else None
