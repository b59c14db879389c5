"""Every run that is not finished: who waits, who has a turn and where, and who goes next.

Without locks, threads and network: the dispatcher guards it, carries out those it has `begun`, and records
its `endings`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from comfyui_workflow.errors import InvalidAddress, InvalidRequest
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.retry import Patience
from comfyui_workflow.runs.events import Event, RunCancelled, RunFailed
from comfyui_workflow.runs.model import Run
from comfyui_workflow.runs.target import AnyInstance, InstanceId, tag_of
from comfyui_workflow.scheduling.capacity import Floor, reasons_sentence, usable_key
from comfyui_workflow.scheduling.choice import choose
from comfyui_workflow.scheduling.delay_queue import LaterRuns
from comfyui_workflow.scheduling.executor import Standing
from comfyui_workflow.scheduling.pacing import Stagger, Staggering
from comfyui_workflow.scheduling.pending_queue import (
    AnyOf,
    At,
    Named,
    Target,
    Waiting,
    WaitingRuns,
)
from comfyui_workflow.sessions.session import InstanceKey, key_of
from comfyui_workflow.workflows.model_files import models_named
from comfyui_workflow.workflows.resolve import foreseen_graph

REFUSALS_AGE = timedelta(minutes=1)
"""What an instance could not run then, it may be able to run now: a model has arrived."""


@dataclass(kw_only=True)
class Carried:
    """A run that has its turn."""

    run_id: str
    key: InstanceKey
    instance_id: str | None
    reason: str
    gives_way: str | None = None
    """Why it should leave its instance before its prompt is there."""
    needs_pause: bool = False
    may_overwrite: bool = False
    """Its nodes may save under names that a prompt before it used."""
    stagger: Stagger | None = None
    """Until it has submitted, where its batch is staggered."""
    wake: Callable[[], None] = lambda: None
    """Returns at once."""


class Board:
    """`run_of` gives a run by its id, as it is now; `last_start_of` is as for `Staggering`. Every time that a
    method is given is one of a clock that nobody sets; `steady` makes such a one of a time in a record."""

    def __init__(
        self,
        floor: Floor,
        run_of: Callable[[str], Run],
        last_start_of: Callable[[str], datetime | None],
        any_patience: timedelta,
        steady: Callable[[datetime], datetime] = lambda at: at,
    ) -> None:
        self.floor = floor
        self.carried: dict[str, Carried] = {}
        self.begun: list[str] = []
        self.endings: list[tuple[str, Event]] = []
        self._run_of = run_of
        self._any_patience = any_patience
        self._waiting = WaitingRuns()
        self._later = LaterRuns()
        self._not_yet: set[str] = set()
        """Staggered runs that wait for their time."""
        self._were_due: set[str] = set()
        """They have waited for their time once, and do not again, whatever the clock says."""
        self._steady = steady
        self._staggering = Staggering(last_start_of)
        self._refusals: dict[str, dict[str, str]] = {}
        self._refusals_since: datetime | None = None
        self._pauses: dict[str, Patience] = {}
        self._nobody_since: dict[str, datetime] = {}

    # who comes and goes

    def put(self, run: Run, at: datetime) -> None:
        """Where it belongs: carried on if ComfyUI may have its prompt, later, or among those who wait."""
        if run.run_id in self.carried:
            return
        starts_at = self._starts_at(run, at)
        try:
            if run.prompt_id is not None or run.are_outputs_known:
                self._carry_on(run)
            elif run.is_cancel_requested:
                self.endings.append((run.run_id, RunCancelled()))
            elif starts_at is not None and starts_at > at:
                self._not_yet.add(run.run_id)
                self._later.add(run.run_id, starts_at)
            else:
                self._waiting.add(self._as_waiting(run))
        except InvalidAddress as error:
            self.endings.append((run.run_id, RunFailed(code=error.code, message=str(error))))

    def _starts_at(self, run: Run, at: datetime) -> datetime | None:
        """When a staggered run may start. Where the clock was set back to before it was ordered, nobody knows
        how much of its time is over: then the time between two starts alone keeps them apart."""
        if run.request.not_before is None or run.run_id in self._were_due:
            return None
        if self._steady(run.queue_time) > at:
            return None
        return self._steady(run.request.not_before)

    def change(self, run: Run, at: datetime) -> None:
        """It was cancelled, or got another priority. One that is cancelled before it was put ends, too."""
        is_waiting = run.run_id in self._waiting
        if run.is_cancel_requested and (is_waiting or run.run_id in self._later):
            self._end(run.run_id, RunCancelled())
        elif is_waiting or (run.is_cancel_requested and not run.is_finished):
            self.put(run, at)

    def cancel_waiting(self, run_ids: Sequence[str], reason: str | None) -> list[str]:
        """Those that wait, and those that are about to end already."""
        ending = {run_id for run_id, _ in self.endings}
        waiting = [each for each in run_ids if each in self._waiting or each in self._later]
        for run_id in waiting:
            self._end(run_id, RunCancelled(message=reason))
        return [*waiting, *(each for each in run_ids if each in ending)]

    def take_back(self, run: Run, at: datetime) -> None:
        """Its turn is over. Not finished, it has left its instance; trouble that meets it wherever it goes
        must not send it round in circles."""
        carried = self.carried.pop(run.run_id)
        self.floor.seats_of(carried.key).leave(run.run_id)
        if run.is_finished:
            self._forget(run.run_id)
        elif carried.needs_pause:
            patience = self._pauses.setdefault(run.run_id, Patience())
            self._later.add(run.run_id, at + timedelta(seconds=patience.next_wait_s()))
        else:
            self.put(run, at)

    def refuse(self, run_id: str, instance_id: str, reason: str) -> None:
        """That instance cannot run it."""
        self._refusals.setdefault(run_id, {})[instance_id] = reason

    # what is told of them

    def standing(self, run_id: str, at: datetime) -> Standing | None:
        waiting = self._waiting.get(run_id)
        if waiting is not None:
            position = self.floor.position(waiting, self._waiting.ahead_of(waiting))
            return Standing(position=position, message=self._why_waiting(waiting, at))
        carried = self.carried.get(run_id)
        seats = self.floor.seats_of(carried.key) if carried else None
        if seats and seats.is_asking(run_id):
            return Standing(position=seats.ahead_of(run_id), message=None)
        starts_at = self._later.get(run_id)
        return None if starts_at is None else self._standing_later(run_id, starts_at)

    def wanted_instances(self) -> list[Instance]:
        """Which have to be looked at, for those who wait and those who are there."""
        tags = {head.target.tag for head in self._waiting.heads() if isinstance(head.target, AnyOf)}
        meant = (each for tag in tags for each in self.floor.meant(tag))
        used = (self.floor.instance(each.instance_id) for each in self.carried.values() if each.instance_id)
        return list({each.id: each for each in (*meant, *used) if each is not None}.values())

    # the time between two runs of a batch

    def start_is_due_in_s(self, carried: Carried, at: datetime) -> float:
        """0 where it may submit now."""
        due = None if carried.stagger is None else self._staggering.start_at(carried.stagger)
        return 0.0 if due is None else max(0.0, (due - at).total_seconds())

    def note_start(self, carried: Carried, at: datetime) -> None:
        """It submits now."""
        if carried.stagger is not None:
            self._staggering.started(carried.stagger, at)
            carried.stagger = None

    def next_due(self, at: datetime) -> datetime | None:
        """When somebody may have a turn that may not yet."""
        turns = [self._turn_at(head) for head in self._waiting.heads()]
        return min(
            (due for due in (self._later.soonest, *turns) if due is not None and due > at), default=None
        )

    # deciding

    def decide(self, at: datetime) -> None:
        for run_id in self._later.take_due(at):
            if run_id in self._not_yet:
                self._not_yet.discard(run_id)
                self._were_due.add(run_id)
            self.put(self._run_of(run_id), at)
        while any(self._admit(head, at) for head in self._waiting.heads()):
            pass
        self._end_who_cannot_run(at)
        self._make_way(at)
        self._forget_old_refusals(at)

    def _admit(self, head: Waiting, at: datetime) -> bool:
        """Whether it got its turn, or its end."""
        if not self._is_due(head, at):
            return False
        match head.target:
            case AnyOf():
                return self._admit_to_best(head, head.target.tag, at)
            case Named():
                instance = self.floor.instance(head.target.instance_id)
                if instance is not None:
                    return self._admit_to(head, instance, "the request says so", at)
                gone = RunFailed(code="instance_not_found", message="Its instance was removed")
                self._end(head.run_id, gone)
                return True
            case At():
                return self._give_turn(head, head.target.key, None, "", at)

    def _is_due(self, head: Waiting, at: datetime) -> bool:
        due = self._turn_at(head)
        return due is None or due <= at

    def _turn_at(self, head: Waiting) -> datetime | None:
        return None if head.stagger is None else self._staggering.turn_at(head.stagger)

    def _admit_to_best(self, head: Waiting, tag: str, at: datetime) -> bool:
        candidates = self.floor.candidates(tag, head.refused_by)
        if not candidates or self.floor.is_first_look_due(tag, at):
            return False
        is_any_loaded = any(candidate.loaded for candidate in candidates)
        models = _models_of(self._run_of(head.run_id)) if is_any_loaded else frozenset[str]()
        choice = choose(candidates, models)
        return self._admit_to(head, choice.instance, choice.reason, at)

    def _admit_to(self, run: Waiting, instance: Instance, reason: str, at: datetime) -> bool:
        key = usable_key(instance)
        return key is not None and self._give_turn(run, key, instance.id, reason, at)

    def _give_turn(
        self, run: Waiting, key: InstanceKey, instance_id: str | None, reason: str, at: datetime
    ) -> bool:
        if not self.floor.has_room(key):
            return False
        self._waiting.remove(run.run_id)
        self.floor.seats_of(key).expect(run.run_id, run.order)
        self._begin(run.run_id, key, instance_id, reason)
        if run.stagger is not None:
            self.carried[run.run_id].stagger = run.stagger
            self._staggering.turn_given(run.stagger, at)
        return True

    def _carry_on(self, run: Run) -> None:
        """Raises: InvalidAddress."""
        here = run.placement
        instance = self.floor.instance(here.instance_id) if here else None
        key = (usable_key(instance) if instance else None) or key_of(run)
        seats = self.floor.seats_of(key)
        seats.keeping_names.add(run.run_id)  # how its nodes name files is not known any more
        if not run.are_outputs_known:
            seats.take_place(run.run_id)
        self._begin(run.run_id, key, here.instance_id if here else None, here.reason if here else "")

    def _begin(self, run_id: str, key: InstanceKey, instance_id: str | None, reason: str) -> None:
        self.carried[run_id] = Carried(run_id=run_id, key=key, instance_id=instance_id, reason=reason)
        self.begun.append(run_id)

    def _end_who_cannot_run(self, at: datetime) -> None:
        """Every instance that is meant has refused it; or none has been ready for too long."""
        for head, tag in self._heads_for_any():
            meant = self.floor.meant(tag)
            is_refused = meant and {each.id for each in meant} <= head.refused_by
            has_nobody = self._has_had_nobody(tag, at)
            if is_refused or has_nobody:
                for run in self._waiting.row(head):
                    self._end(run.run_id, self._no_instance(run) if has_nobody else self._refusal(run))

    def _heads_for_any(self) -> Iterator[tuple[Waiting, str]]:
        for head in self._waiting.heads():
            if isinstance(head.target, AnyOf):
                yield head, head.target.tag

    def _has_had_nobody(self, tag: str, at: datetime) -> bool:
        if any(True for _ in self.floor.ready(tag)):
            self._nobody_since.pop(tag, None)
            return False
        return at - self._nobody_since.setdefault(tag, at) > self._any_patience

    def _no_instance(self, run: Waiting) -> RunFailed:
        why = self.floor.why_waiting(run, self._refusals.get(run.run_id, {}))
        return RunFailed(code="no_instance", message=f"No instance took it. {why}")

    def _refusal(self, run: Waiting) -> RunFailed:
        refusals = self._refusals.get(run.run_id, {})
        named = {each.name: refusals[each.id] for each in self.floor.directory.all() if each.id in refusals}
        told = f"No instance can run the workflow. {reasons_sentence(named)}"
        return RunFailed(code="invalid_workflow", message=told)

    def _make_way(self, at: datetime) -> None:
        """Who is ready and waits for a place may be better off elsewhere, or be overtaken."""
        heads = [head for head in self._waiting.heads() if self._is_due(head, at)]
        for carried in self.carried.values():
            if carried.gives_way is None and self.floor.seats_of(carried.key).is_asking(carried.run_id):
                carried.gives_way = self._reason_to_give_way(carried, heads)

    def _reason_to_give_way(self, carried: Carried, heads: list[Waiting]) -> str | None:
        run = self._run_of(carried.run_id)
        higher = (head for head in heads if head.priority > run.priority)
        if any(carried.key in self.floor.keys_for(head.target) for head in higher):
            return "A run of higher priority goes first"
        tag = tag_of(run.request.target)
        if tag is None:
            return None
        if all(key != carried.key for _, key in self.floor.ready(tag)):
            return "The instance is away"
        refused_by = frozenset(self._refusals.get(carried.run_id, ()))
        is_somebody_idle = any(each.ahead == 0 for each in self.floor.candidates(tag, refused_by))
        return "Another instance has nothing to do" if is_somebody_idle and not heads else None

    def _forget_old_refusals(self, at: datetime) -> None:
        """Of those who wait for an instance that is away, meanwhile."""
        if self._refusals_since is None or not self._refusals:
            self._refusals_since = at
        if at - self._refusals_since < REFUSALS_AGE:
            return
        self._refusals_since = at
        for run_id in [each for each in self._refusals if each in self._waiting]:
            del self._refusals[run_id]
            self.put(self._run_of(run_id), at)

    # helpers

    def _as_waiting(self, run: Run) -> Waiting:
        return Waiting(
            run_id=run.run_id,
            priority=run.priority,
            target=self._target(run),
            refused_by=frozenset(self._refusals.get(run.run_id, ())),
            stagger=_stagger_of(run),
        )

    def _why_waiting(self, run: Waiting, at: datetime) -> str:
        due = self._turn_at(run)
        if due is not None and due > at:
            return f"The next run of its batch is to be started at {due:%H:%M:%S} UTC"
        return self.floor.why_waiting(run, self._refusals.get(run.run_id, {}))

    def _target(self, run: Run) -> Target:
        """Raises: InvalidAddress."""
        match run.request.target:
            case AnyInstance(tag=tag):
                return AnyOf(tag=tag)
            case InstanceId(instance_id=instance_id):
                return Named(instance_id=instance_id)
        key = key_of(run)
        instance = self.floor.instance_at(key)
        return At(key=key) if instance is None else Named(instance_id=instance.id)

    def _standing_later(self, run_id: str, starts_at: datetime) -> Standing:
        """It is staggered, or rests after trouble, of which it tells itself."""
        is_staggered = run_id in self._not_yet
        message = f"To be started at {starts_at:%H:%M:%S} UTC" if is_staggered else None
        return Standing(position=len(self._waiting), message=message)

    def _end(self, run_id: str, ending: Event) -> None:
        self._waiting.remove(run_id)
        self._later.remove(run_id)
        self._forget(run_id)
        self.endings.append((run_id, ending))

    def _forget(self, run_id: str) -> None:
        self._not_yet.discard(run_id)
        self._were_due.discard(run_id)
        self._refusals.pop(run_id, None)
        self._pauses.pop(run_id, None)


def _stagger_of(run: Run) -> Stagger | None:
    batch_id, seconds = run.request.batch_id, run.request.stagger_s
    return Stagger(batch_id, seconds) if batch_id is not None and seconds > 0 else None


def _models_of(run: Run) -> frozenset[str]:
    """As far as is known now. A workflow that is none is told by the instance it goes to."""
    try:
        return models_named(run.prepared_graph or foreseen_graph(run.request))
    except InvalidRequest:
        return frozenset()
