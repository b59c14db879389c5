"""The scheduler's state: every run that is not finished, who waits, who has a turn and where, who goes next.

How it works. Events come in by methods, instructions go out as frozen dataclasses, and nobody edits a field
from outside. Here are no locks, threads, network and disk: whoever calls reads the records before, holds a
lock of its own around each method, and carries the instructions out when it has let that lock go.

A run that is `put` is in one of four places:

    delayed    its time has not come: a staggered run, or one that rests after trouble     DelayQueue
    pending    it may start as soon as an instance has room for it                         PendingQueue
    active     it has its turn: a thread carries it out, on one instance                   ActiveRun
    ending     it never gets a turn any more, and its end is to be recorded                EndRun

`decide` moves runs on: delayed ones that are due become pending; the head of each row of pending ones becomes
active where its target has room (`StartRun`); those that no instance can run end (`EndRun`). An active run
asks for a slot before it submits its prompt (`ask_for_slot`), so that prompts arrive one by one in the order
of their runs; while it waits for that, it may be preempted. `take_back` ends a turn: the run is finished, or
is put again, elsewhere or after a pause.

Every time that a method is given is one of a clock that nobody sets; `steady` makes such a one of a time in a
record.
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
from comfyui_workflow.runs.target import AnyInstance, InstanceId, tag_of
from comfyui_workflow.scheduling.capacity import Capacity, Slots, reasons_sentence, usable_key
from comfyui_workflow.scheduling.choice import choose
from comfyui_workflow.scheduling.executor import QueueStatus
from comfyui_workflow.scheduling.pacing import DelayQueue, Pacing, Stagger
from comfyui_workflow.scheduling.pending_queue import (
    AnyOf,
    At,
    Named,
    PendingQueue,
    PendingRun,
    Target,
)
from comfyui_workflow.sessions.session import InstanceKey, key_of

REFUSALS_AGE = timedelta(minutes=1)
"""What an instance could not run then, it may be able to run now: a model has arrived."""


@dataclass(frozen=True, kw_only=True)
class ActiveRun:
    """A run that has its turn."""

    run_id: str
    key: InstanceKey
    instance_id: str | None
    reason: str
    """Why this instance was chosen."""
    cancelled: CancelToken = field(default_factory=CancelToken)
    instance_gone: CancelToken = field(default_factory=CancelToken)


@dataclass(frozen=True, kw_only=True)
class StartRun:
    """Carry it out, in a thread of its own, until `take_back`."""

    run_id: str


@dataclass(frozen=True, kw_only=True)
class EndRun:
    """Record its end. Where that cannot be saved, `end_later`."""

    run_id: str
    ending: Event


@dataclass(frozen=True, kw_only=True)
class Requeue:
    """Read its record and put it: somebody wanted it to go on before its turn was over."""

    run_id: str


@dataclass(frozen=True, kw_only=True)
class FindModels:
    """Find the model files of its workflow, tell them by `know_models` and decide again: they choose its
    instance."""

    run_id: str


@dataclass(frozen=True, kw_only=True)
class MonitorInstance:
    """Look at it: runs wait for it, or are there."""

    instance: Instance


@dataclass(frozen=True, kw_only=True)
class NotifyCancelled:
    """Wake the thread that carries it out: the run is cancelled."""

    run: ActiveRun


@dataclass(frozen=True, kw_only=True)
class NotifyInstanceRemoved:
    """Wake the thread that carries it out: its instance was removed."""

    run: ActiveRun


Instruction = (
    StartRun | EndRun | Requeue | FindModels | MonitorInstance | NotifyCancelled | NotifyInstanceRemoved
)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is to be done now. `wake_at`: when there is something to decide again, if that is known."""

    instructions: tuple[Instruction, ...]
    wake_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class SlotDecision:
    """Whether a run may submit its prompt now. If not, it asks again when something has changed, or after
    `asks_again_in_s`; and it leaves its instance where it is `preempted`, a sentence."""

    is_given: bool
    asks_again_in_s: float | None = None
    is_held: bool = False
    """It waits until files of another run are fetched, and for nothing else."""
    preempted: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Queued:
    """A run without a turn, as it was ordered. `target` is as the request names it."""

    run_id: str
    priority: int
    target: Target
    stagger: Stagger | None


@dataclass(kw_only=True)
class _Turn:
    """What changes of an active run."""

    run: ActiveRun
    priority: int
    tag: str | None
    """Of a run for `any`."""
    stagger: Stagger | None = None
    """Until it has submitted, where its batch is staggered."""
    preempted: str | None = None
    needs_pause: bool = False
    is_wanted_again: bool = False
    """It was put while it had its turn."""


class SchedulerState:
    """To be guarded by its owner."""

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
        """Those that are pending or delayed."""
        self._pending = PendingQueue()
        self._delayed = DelayQueue()
        self._turns: dict[str, _Turn] = {}
        self._begun: list[StartRun] = []
        self._endings: list[EndRun] = []
        self._not_yet: set[str] = set()
        """Staggered runs that wait for their time."""
        self._were_due: set[str] = set()
        """They have waited for their time once, and do not again, whatever the clock says."""
        self._pacing = Pacing()
        self._models: dict[str, frozenset[str]] = {}
        self._refusals: dict[str, dict[str, str]] = {}
        self._refusals_since: datetime | None = None
        self._pauses: dict[str, Backoff] = {}
        self._nobody_since: dict[str, datetime] = {}

    # what happens

    def see(self, instances: Sequence[Instance], number: int) -> None:
        """The instances that there are. `number` grows with each look: an older look that comes late is
        passed over."""
        if number > self._seen:
            self._seen = number
            self._capacity.see(instances)

    def put(self, run: Run, at: datetime, last_start: datetime | None = None) -> None:
        """A run as its record is now: carried on if ComfyUI may have its prompt, delayed, or pending.
        `last_start`: of the last run of its batch, where `knows_batch` says that it is not known."""
        if run.run_id in self._turns:
            self._turns[run.run_id].is_wanted_again = True
            return
        if run.is_finished:
            return
        starts_at = self._starts_at(run, at)
        try:
            if run.prompt_id is not None or run.are_outputs_known:
                self._carry_on(run)
            elif run.is_cancel_requested:
                self._endings.append(EndRun(run_id=run.run_id, ending=RunCancelled()))
            else:
                self._queue(_queued(run), last_start, starts_at if starts_at and starts_at > at else None)
        except InvalidAddress as error:
            failed = RunFailed(code=error.code, message=str(error))
            self._endings.append(EndRun(run_id=run.run_id, ending=failed))

    def change(self, run: Run, at: datetime) -> tuple[Instruction, ...]:
        """It was cancelled, or got another priority. One that is cancelled before it was put ends, too."""
        turn = self._turns.get(run.run_id)
        if turn is not None:
            turn.priority = run.priority
            return (NotifyCancelled(run=turn.run),) if run.is_cancel_requested else ()
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
        """Those that wait, and those that are about to end already."""
        ending = {each.run_id for each in self._endings}
        waiting = [each for each in run_ids if each in self._queued]
        for run_id in waiting:
            self._end(run_id, RunCancelled(message=reason))
        return [*waiting, *(each for each in run_ids if each in ending)]

    def take_back(
        self, run: Run, at: datetime, last_start: datetime | None = None
    ) -> tuple[Instruction, ...]:
        """Its turn is over. Not finished, it has left its instance; trouble that meets it wherever it goes
        must not send it round in circles."""
        turn = self._turns.pop(run.run_id)
        self._capacity.slots_of(turn.run.key).leave(run.run_id)
        if run.is_finished:
            self._forget(run.run_id)
            return (Requeue(run_id=run.run_id),) if turn.is_wanted_again else ()
        if turn.needs_pause and run.prompt_id is None and not run.is_cancel_requested:
            patience = self._pauses.setdefault(run.run_id, Backoff())
            rests_until = at + timedelta(seconds=patience.next_wait_s())
            self._queue(_queued(run), last_start, rests_until, is_pause=True)
        else:
            self.put(run, at, last_start)
        return ()

    def leave_instance(self, run_id: str, instance_id: str, refusal: str | None) -> None:
        """The active run leaves it: since that cannot run it, for the reason `refusal`; or after trouble, and
        then it rests before it goes elsewhere."""
        if refusal is None:
            self._turns[run_id].needs_pause = True
        else:
            self._refusals.setdefault(run_id, {})[instance_id] = refusal

    def end_later(self, ending: EndRun) -> None:
        """It could not be recorded."""
        self._endings.append(ending)

    def know_models(self, run_id: str, models: frozenset[str]) -> None:
        if run_id in self._queued:
            self._models[run_id] = models

    # the slot of an active run

    def ask_for_slot(self, run_id: str, at: datetime, at_s: float, *, may_overwrite: bool) -> SlotDecision:
        """To be told by `stop_asking` when the prompt is there, or could not be submitted. A run that comes
        too soon after another of its batch does not ask, and keeps nobody waiting. `at_s`: monotonic."""
        turn, slots = self._turns[run_id], self._slots(run_id)
        due_in_s = self._start_is_due_in_s(turn, at)
        if not due_in_s and slots.ask(run_id, self._capacity.most_prompts, at_s, may_overwrite=may_overwrite):
            if turn.stagger is not None:
                self._pacing.started(turn.stagger, at)
                turn.stagger = None
            return SlotDecision(is_given=True)
        return SlotDecision(
            is_given=False,
            asks_again_in_s=due_in_s or slots.waits_for_s(run_id, at_s),
            is_held=slots.is_held(run_id),
            preempted=turn.preempted,
        )

    def submitted(self, run_id: str, models: frozenset[str], at: datetime) -> None:
        """Its prompt is there, the last of ours: its model files are in the memory of the instance. `at` is
        of the wall clock."""
        self._slots(run_id).last_prompt_has(models, at)

    def stop_asking(self, run_id: str) -> None:
        self._slots(run_id).stop_asking(run_id)

    def leave_slot(self, run_id: str) -> None:
        """Its prompt executes no more."""
        self._slots(run_id).release_slot(run_id)

    # what is asked

    def active(self, run_id: str) -> ActiveRun:
        return self._turns[run_id].run

    def knows_batch(self, batch_id: str) -> bool:
        return self._pacing.knows(batch_id)

    def meant(self, tag: str) -> list[Instance]:
        return self._capacity.meant(tag)

    def is_another_ready(self, tag: str, instance_id: str) -> bool:
        return any(each.id != instance_id for each, _ in self._capacity.ready(tag))

    def standing(self, run_id: str, at: datetime) -> QueueStatus | None:
        pending = self._pending.get(run_id)
        if pending is not None:
            position = self._capacity.position(pending, self._pending.ahead_of(pending))
            return QueueStatus(position=position, message=self._why_pending(pending, at))
        if run_id in self._turns:
            slots = self._slots(run_id)
            return (
                QueueStatus(position=slots.ahead_of(run_id), message=None)
                if slots.is_asking(run_id)
                else None
            )
        starts_at = self._delayed.get(run_id)
        return None if starts_at is None else self._standing_delayed(run_id, starts_at)

    # deciding

    def decide(self, at: datetime, most_endings: int) -> Decision:
        """At most so many runs end at once: ten thousand may be cancelled together."""
        for run_id in self._delayed.take_due(at):
            if run_id in self._not_yet:
                self._not_yet.discard(run_id)
                self._were_due.add(run_id)
            self._make_pending(run_id)
        questions = self._admit_all(at)
        self._end_who_cannot_run(at)
        self._preempt(at)
        self._forget_old_refusals(at)
        begun, self._begun = self._begun, []
        endings = self._endings[:most_endings]
        del self._endings[:most_endings]
        is_more_to_do = bool(questions) or len(endings) == most_endings
        return Decision(
            instructions=(*self._watched(), *self._stranded(), *begun, *endings, *questions),
            wake_at=at if is_more_to_do else self._next_due(at),
        )

    def _admit_all(self, at: datetime) -> tuple[FindModels, ...]:
        """Which models must be known before it goes on: nobody overtakes a run that waits for that."""
        while True:
            heads = [head for head in self._pending.heads() if self._is_due(head, at)]
            unknown = tuple(FindModels(run_id=head.run_id) for head in heads if self._needs_models(head))
            if unknown or not any(self._admit(head, at) for head in heads):
                return unknown

    def _needs_models(self, head: PendingRun) -> bool:
        if not isinstance(head.target, AnyOf) or head.run_id in self._models:
            return False
        return any(each.loaded for each in self._capacity.candidates(head.target.tag, head.refused_by))

    def _admit(self, head: PendingRun, at: datetime) -> bool:
        """Whether it got its turn, or its end."""
        match head.target:
            case AnyOf():
                return self._admit_to_best(head, head.target.tag, at)
            case Named():
                instance = self._capacity.instance(head.target.instance_id)
                if instance is not None:
                    return self._admit_to(head, instance, "the request says so", at)
                gone = RunFailed(code="instance_not_found", message="Its instance was removed")
                self._end(head.run_id, gone)
                return True
            case At():
                return self._give_turn(head, head.target.key, None, "", at)

    def _is_due(self, head: PendingRun, at: datetime) -> bool:
        due = self._turn_at(head)
        return due is None or due <= at

    def _turn_at(self, head: PendingRun) -> datetime | None:
        return None if head.stagger is None else self._pacing.turn_at(head.stagger)

    def _admit_to_best(self, head: PendingRun, tag: str, at: datetime) -> bool:
        candidates = self._capacity.candidates(tag, head.refused_by)
        if not candidates or self._capacity.is_first_look_due(tag, at):
            return False
        choice = choose(candidates, self._models.get(head.run_id, frozenset()))
        return self._admit_to(head, choice.instance, choice.reason, at)

    def _admit_to(self, run: PendingRun, instance: Instance, reason: str, at: datetime) -> bool:
        key = usable_key(instance)
        return key is not None and self._give_turn(run, key, instance.id, reason, at)

    def _give_turn(
        self, run: PendingRun, key: InstanceKey, instance_id: str | None, reason: str, at: datetime
    ) -> bool:
        if not self._capacity.has_room(key):
            return False
        self._unqueue(run.run_id)
        self._capacity.slots_of(key).expect(run.run_id, run.order)
        active = ActiveRun(run_id=run.run_id, key=key, instance_id=instance_id, reason=reason)
        tag = run.target.tag if isinstance(run.target, AnyOf) else None
        self._begin(_Turn(run=active, priority=run.priority, tag=tag, stagger=run.stagger))
        if run.stagger is not None:
            self._pacing.turn_given(run.stagger, at)
        return True

    def _carry_on(self, run: Run) -> None:
        """Raises: InvalidAddress."""
        here = run.placement
        instance = self._capacity.instance(here.instance_id) if here else None
        key = (usable_key(instance) if instance else None) or key_of(run)
        slots = self._capacity.slots_of(key)
        slots.keep_names(run.run_id)  # how its nodes name files is not known any more
        if not run.are_outputs_known:
            slots.take_place(run.run_id)
        self._unqueue(run.run_id)
        active = ActiveRun(
            run_id=run.run_id,
            key=key,
            instance_id=here.instance_id if here else None,
            reason=here.reason if here else "",
        )
        if run.is_cancel_requested:
            active.cancelled.cancel("the run is cancelled")
        tag = tag_of(run.request.target)
        self._begin(_Turn(run=active, priority=run.priority, tag=tag))

    def _begin(self, turn: _Turn) -> None:
        self._turns[turn.run.run_id] = turn
        self._begun.append(StartRun(run_id=turn.run.run_id))

    def _end_who_cannot_run(self, at: datetime) -> None:
        """Every instance that is meant has refused it; or none has been ready for too long."""
        for head, tag in self._heads_for_any():
            meant = self._capacity.meant(tag)
            is_refused = meant and {each.id for each in meant} <= head.refused_by
            has_nobody = self._has_had_nobody(tag, at)
            if is_refused or has_nobody:
                for run in self._pending.row(head):
                    self._end(run.run_id, self._no_instance(run) if has_nobody else self._refusal(run))

    def _heads_for_any(self) -> Iterator[tuple[PendingRun, str]]:
        for head in self._pending.heads():
            if isinstance(head.target, AnyOf):
                yield head, head.target.tag

    def _has_had_nobody(self, tag: str, at: datetime) -> bool:
        if any(True for _ in self._capacity.ready(tag)):
            self._nobody_since.pop(tag, None)
            return False
        return at - self._nobody_since.setdefault(tag, at) > self._any_patience

    def _no_instance(self, run: PendingRun) -> RunFailed:
        why = self._capacity.why_waiting(run, self._refusals.get(run.run_id, {}))
        return RunFailed(code="no_instance", message=f"No instance took it. {why}")

    def _refusal(self, run: PendingRun) -> RunFailed:
        refusals = self._refusals.get(run.run_id, {})
        named = {each.name: refusals[each.id] for each in self._capacity.instances if each.id in refusals}
        told = f"No instance can run the workflow. {reasons_sentence(named)}"
        return RunFailed(code="invalid_workflow", message=told)

    def _preempt(self, at: datetime) -> None:
        """A run that is ready and waits for a slot may be better off elsewhere, or be overtaken."""
        heads = [head for head in self._pending.heads() if self._is_due(head, at)]
        for turn in self._turns.values():
            if turn.preempted is None and self._slots(turn.run.run_id).is_asking(turn.run.run_id):
                turn.preempted = self._reason_to_preempt(turn, heads)

    def _reason_to_preempt(self, turn: _Turn, heads: list[PendingRun]) -> str | None:
        key = turn.run.key
        higher = (head for head in heads if head.priority > turn.priority)
        if any(key in self._capacity.keys_for(head.target) for head in higher):
            return "A run of higher priority goes first"
        if turn.tag is None:
            return None
        if all(each != key for _, each in self._capacity.ready(turn.tag)):
            return "The instance is away"
        refused_by = frozenset(self._refusals.get(turn.run.run_id, ()))
        is_somebody_idle = any(each.ahead == 0 for each in self._capacity.candidates(turn.tag, refused_by))
        return "Another instance has nothing to do" if is_somebody_idle and not heads else None

    def _forget_old_refusals(self, at: datetime) -> None:
        """Of those who wait for an instance that is away, meanwhile."""
        if self._refusals_since is None or not self._refusals:
            self._refusals_since = at
        if at - self._refusals_since < REFUSALS_AGE:
            return
        self._refusals_since = at
        for run_id in [each for each in self._refusals if each in self._pending]:
            del self._refusals[run_id]
            self._make_pending(run_id)

    def _watched(self) -> tuple[MonitorInstance, ...]:
        """The instances of those who wait and of those who are there."""
        tags = {head.target.tag for head in self._pending.heads() if isinstance(head.target, AnyOf)}
        meant = (each for tag in tags for each in self._capacity.meant(tag))
        used = (
            self._capacity.instance(each.run.instance_id)
            for each in self._turns.values()
            if each.run.instance_id
        )
        wanted = {each.id: each for each in (*meant, *used) if each is not None}
        return tuple(MonitorInstance(instance=each) for each in wanted.values())

    def _stranded(self) -> tuple[NotifyInstanceRemoved, ...]:
        """Those whose named instance was removed."""
        active = [turn.run for turn in self._turns.values() if not turn.run.instance_gone.is_set]
        return tuple(
            NotifyInstanceRemoved(run=each)
            for each in active
            if each.instance_id is not None and self._capacity.instance(each.instance_id) is None
        )

    def _next_due(self, at: datetime) -> datetime | None:
        """When somebody may have a turn that may not yet."""
        turns = [self._turn_at(head) for head in self._pending.heads()]
        return min(
            (due for due in (self._delayed.soonest, *turns) if due is not None and due > at), default=None
        )

    # helpers

    def _starts_at(self, run: Run, at: datetime) -> datetime | None:
        """When a staggered run may start. Where the clock was set back to before it was ordered, nobody knows
        how much of its time is over: then the time between two starts alone keeps them apart."""
        if run.request.not_before is None or run.run_id in self._were_due:
            return None
        if self._steady(run.queue_time) > at:
            return None
        return self._steady(run.request.not_before)

    def _start_is_due_in_s(self, turn: _Turn, at: datetime) -> float:
        """0 where it may submit now."""
        due = None if turn.stagger is None else self._pacing.start_at(turn.stagger)
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
            self._not_yet.add(queued.run_id)
        self._delayed.add(queued.run_id, starts_at)

    def _unqueue(self, run_id: str) -> None:
        self._queued.pop(run_id, None)
        self._pending.remove(run_id)
        self._delayed.remove(run_id)
        self._models.pop(run_id, None)

    def _make_pending(self, run_id: str) -> None:
        """In place of what was known of it."""
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

    def _resolved(self, target: Target) -> Target:
        """An ssh string may lead to a named instance."""
        instance = self._capacity.instance_at(target.key) if isinstance(target, At) else None
        return target if instance is None else Named(instance_id=instance.id)

    def _slots(self, run_id: str) -> Slots:
        return self._capacity.slots_of(self._turns[run_id].run.key)

    def _why_pending(self, run: PendingRun, at: datetime) -> str:
        due = self._turn_at(run)
        if due is not None and due > at:
            return f"The next run of its batch is to be started at {due:%H:%M:%S} UTC"
        return self._capacity.why_waiting(run, self._refusals.get(run.run_id, {}))

    def _standing_delayed(self, run_id: str, starts_at: datetime) -> QueueStatus:
        """It is staggered, or rests after trouble, of which it tells itself."""
        is_staggered = run_id in self._not_yet
        message = f"To be started at {starts_at:%H:%M:%S} UTC" if is_staggered else None
        return QueueStatus(position=len(self._pending), message=message)

    def _end(self, run_id: str, ending: Event) -> None:
        self._unqueue(run_id)
        self._forget(run_id)
        self._endings.append(EndRun(run_id=run_id, ending=ending))

    def _forget(self, run_id: str) -> None:
        self._not_yet.discard(run_id)
        self._were_due.discard(run_id)
        self._refusals.pop(run_id, None)
        self._pauses.pop(run_id, None)


def _queued(run: Run) -> _Queued:
    """Raises: InvalidAddress."""
    return _Queued(run_id=run.run_id, priority=run.priority, target=_target_of(run), stagger=_stagger_of(run))


def _target_of(run: Run) -> Target:
    """Raises: InvalidAddress."""
    match run.request.target:
        case AnyInstance(tag=tag):
            return AnyOf(tag=tag)
        case InstanceId(instance_id=instance_id):
            return Named(instance_id=instance_id)
        case _:
            return At(key=key_of(run))


def _stagger_of(run: Run) -> Stagger | None:
    batch_id, seconds = run.request.batch_id, run.request.stagger_s
    return Stagger(batch_id, seconds) if batch_id is not None and seconds > 0 else None
