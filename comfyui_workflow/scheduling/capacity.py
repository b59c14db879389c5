"""What the scheduler decides by: the instances, how they are, and how many slots each has left."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from comfyui_workflow.errors import InvalidAddress
from comfyui_workflow.instances.model import Instance, key_of_instance
from comfyui_workflow.instances.state import InstanceState, Reachability
from comfyui_workflow.scheduling.choice import Candidate
from comfyui_workflow.scheduling.pending_queue import AnyOf, At, Named, PendingRun, Target
from comfyui_workflow.sessions.session import InstanceKey

FIRST_LOOK_S = 3.0
"""How long a run for `any` waits for what is not known yet; then it takes the best of what is."""


Order = tuple[int, str]
"""Priority first, then age: `PendingRun.order`."""

HEAD_START_S = 2.0
"""How long whoever is ready waits for one that goes before it, while the GPU may have nothing to do."""


@dataclass(kw_only=True)
class Staging:
    """A run that is carried out, without a prompt there."""

    order: Order
    is_ready: bool = False
    is_held: bool = False
    """It waits until files of another run are fetched, and keeps nobody else waiting for that."""
    waited_for_until_s: float | None = None

    def keeps_others_waiting(self, at_s: float) -> bool:
        """Always once it is ready. Before that each is waited for once: it may be sending large files."""
        if self.waited_for_until_s is None:
            self.waited_for_until_s = at_s + HEAD_START_S
        return not self.is_held and (self.is_ready or at_s < self.waited_for_until_s)


@dataclass
class Slots:
    """The slots of one instance: which of our runs are on their way to it, and which have a prompt there.
    To be guarded by its owner. Runs that fetch their outputs take none: the GPU is free again.

    Prompts arrive in the order of their runs: one is submitted at a time."""

    on_the_way: dict[str, Staging] = field(default_factory=dict)
    with_prompt: set[str] = field(default_factory=set)
    keeping_names: set[str] = field(default_factory=set)
    """Runs whose files there another prompt may write over; from before they submit until they have left."""
    submitting: str | None = None
    """The run whose prompt is just being submitted."""
    models: frozenset[str] = frozenset()
    """Files of the last prompt of ours, which was submitted then."""
    models_at: datetime | None = None

    @property
    def taken(self) -> int:
        return len(self.on_the_way) + len(self.with_prompt)

    def loaded(self, emptied_at: datetime | None) -> frozenset[str]:
        """What the last prompt left in the memory of the instance, unless that was emptied since."""
        is_gone = emptied_at is not None and self.models_at is not None and emptied_at >= self.models_at
        return frozenset() if is_gone else self.models

    def expect(self, run_id: str, order: Order) -> None:
        self.on_the_way[run_id] = Staging(order=order)

    def ask(self, run_id: str, most: int, at_s: float, *, may_overwrite: bool = False) -> bool:
        """Whether the run, which is ready, may submit now: to be told by `stop_asking` when it has, or could
        not. One that `may_overwrite` files of another waits until those are fetched, and its own are kept
        from the next one of that kind. `at_s`: monotonic."""
        if not self._is_next(run_id, most, at_s):
            return False
        if may_overwrite:
            if self._is_to_be_held(run_id):
                return False
            self.keeping_names.add(run_id)
        self.take_place(run_id)
        self.submitting = run_id
        return True

    def _is_to_be_held(self, run_id: str) -> bool:
        """Whether another run keeps its names, or a held one goes before it."""
        asking = self.on_the_way.get(run_id)
        is_held = bool(self.keeping_names - {run_id})
        if asking is not None:
            before = (each for each in self.on_the_way.values() if each.order < asking.order)
            asking.is_held = is_held or any(each.is_held for each in before)
            return asking.is_held
        return is_held

    def _is_next(self, run_id: str, most: int, at_s: float) -> bool:
        asking = self.on_the_way.get(run_id)
        if asking is not None:
            asking.is_ready = True
        if self.submitting is not None:
            return False
        if asking is None:
            return run_id in self.with_prompt
        if len(self.with_prompt) >= most:
            return False
        before = (each for each in self.on_the_way.values() if each.order < asking.order)
        waits_for = [each for each in before if each.keeps_others_waiting(at_s)]
        return not waits_for

    def waits_for_s(self, run_id: str, at_s: float) -> float | None:
        """How long the runs that go before it may still be waited for, because they are not ready; None
        where time alone gives it no place."""
        asking = self.on_the_way.get(run_id)
        head_starts = [
            each.waited_for_until_s - at_s
            for each in self.on_the_way.values()
            if asking is not None
            and each.order < asking.order
            and each.waited_for_until_s is not None
            and each.waited_for_until_s > at_s
        ]
        return min(head_starts, default=None)

    def stop_asking(self, run_id: str) -> None:
        if self.submitting == run_id:
            self.submitting = None
        if run_id in self.on_the_way:
            self.on_the_way[run_id].is_ready = self.on_the_way[run_id].is_held = False

    def is_asking(self, run_id: str) -> bool:
        return run_id in self.on_the_way and self.on_the_way[run_id].is_ready

    def is_held(self, run_id: str) -> bool:
        """Whether it waits for files of another run, and for nothing else."""
        return run_id in self.on_the_way and self.on_the_way[run_id].is_held

    def take_place(self, run_id: str) -> None:
        self.on_the_way.pop(run_id, None)
        self.with_prompt.add(run_id)

    def keep_names(self, run_id: str) -> None:
        """Another prompt may write over its files there, until it leaves."""
        self.keeping_names.add(run_id)

    def last_prompt_has(self, models: frozenset[str], at: datetime) -> None:
        """`at` is of the wall clock."""
        self.models, self.models_at = models, at

    def release_slot(self, run_id: str) -> None:
        """Its prompt is over; its files are still there."""
        self.stop_asking(run_id)
        self.on_the_way.pop(run_id, None)
        self.with_prompt.discard(run_id)

    def leave(self, run_id: str) -> None:
        self.release_slot(run_id)
        self.keeping_names.discard(run_id)

    def ahead_of(self, run_id: str) -> int:
        mine = self.on_the_way.get(run_id)
        before = (each for each in self.on_the_way.values() if mine is None or each.order < mine.order)
        return len(self.with_prompt) + sum(1 for _ in before)


class Registry(Protocol):
    """The named instances. Both methods may read a file that a person has written."""

    def all(self) -> Sequence[Instance]: ...

    def get(self, id_or_name: str) -> Instance | None: ...


class InstanceStates(Protocol):
    def state(self, instance_id: str) -> InstanceState:
        """As it was seen last; asks nobody."""


class Capacity:
    """The instances as they were seen last, and the slots of each. To be guarded by its owner."""

    def __init__(self, states: InstanceStates, *, most_prompts: int, most_on_the_way: int) -> None:
        """`most_prompts`: prompts of ours on one instance at a time; `most_on_the_way`: runs that bring their
        inputs there meanwhile."""
        self.most_prompts = most_prompts
        self._states = states
        self._most_on_the_way = most_on_the_way
        self._instances: tuple[Instance, ...] = ()
        self._by_id: dict[str, Instance] = {}
        self._slots: dict[InstanceKey, Slots] = {}

    @property
    def instances(self) -> tuple[Instance, ...]:
        return self._instances

    def see(self, instances: Sequence[Instance]) -> None:
        """Those that there are now."""
        self._instances = tuple(instances)
        self._by_id = {each.id: each for each in instances}

    def slots_of(self, key: InstanceKey) -> Slots:
        return self._slots.setdefault(key, Slots())

    def has_room(self, key: InstanceKey) -> bool:
        return self.slots_of(key).taken < self.most_prompts + self._most_on_the_way

    def instance(self, instance_id: str) -> Instance | None:
        return self._by_id.get(instance_id)

    def meant(self, tag: str) -> list[Instance]:
        return [instance for instance in self._instances if instance.is_meant_by(tag)]

    def ready(self, tag: str) -> Iterator[tuple[Instance, InstanceKey]]:
        for instance in self.meant(tag):
            key = usable_key(instance)
            if key is not None and self._states.state(instance.id).is_ready:
                yield instance, key

    def is_first_look_due(self, tag: str, at: datetime) -> bool:
        """Whether an instance that may be the best one is just being looked at for the first time."""
        states = [self._states.state(instance.id) for instance in self.meant(tag)]
        return any(
            state.reachability is Reachability.CONNECTING
            and state.connecting_since is not None
            and 0 <= (at - state.connecting_since).total_seconds() < FIRST_LOOK_S
            for state in states
        )

    def candidates(self, tag: str, refused_by: frozenset[str]) -> list[Candidate]:
        return [
            Candidate(
                instance=instance,
                ahead=self.slots_of(key).taken + self._others(instance.id),
                loaded=self.slots_of(key).loaded(self._states.state(instance.id).memory_emptied_at),
            )
            for instance, key in self.ready(tag)
            if instance.id not in refused_by and self.has_room(key)
        ]

    def keys_for(self, target: Target) -> list[InstanceKey]:
        """Where a run of this target could go now, full or not."""
        match target:
            case AnyOf():
                return [key for _, key in self.ready(target.tag)]
            case Named():
                instance = self._by_id.get(target.instance_id)
                key = usable_key(instance) if instance else None
                return [] if key is None else [key]
            case At():
                return [target.key]

    def instance_at(self, key: InstanceKey) -> Instance | None:
        """The instance that an ssh string leads to, if it is one of the directory."""
        return next(
            (each for each in self._instances if is_same_machine(usable_key(each), key)),
            None,
        )

    def position(self, run: PendingRun, ahead: int) -> int:
        """Runs that go before it, and what is there already."""
        return ahead + min((self.slots_of(key).taken for key in self.keys_for(run.target)), default=0)

    def why_waiting(self, run: PendingRun, refusals: Mapping[str, str]) -> str:
        """`refusals`: why instances cannot run it, by their ids."""
        if not isinstance(run.target, AnyOf):
            return f"Waiting for a place on the instance: {self.most_prompts} prompts at a time are there"
        meant = self.meant(run.target.tag)
        if not meant:
            which = f" with the tag {run.target.tag}" if run.target.tag else ""
            return f"Waiting for an instance: none{which} is enabled"
        if self._is_full_for(run):
            return f"Waiting for a place on an instance: {self.most_prompts} prompts at a time are on each"
        why = {each.name: refusals.get(each.id) or self._why_not(each) for each in meant}
        return f"Waiting for an instance. {reasons_sentence(why)}"

    def _is_full_for(self, run: PendingRun) -> bool:
        return isinstance(run.target, AnyOf) and any(
            instance.id not in run.refused_by for instance, _ in self.ready(run.target.tag)
        )

    def _why_not(self, instance: Instance) -> str:
        state = self._states.state(instance.id)
        return state.trouble or f"it is {state.reachability.value}"

    def _others(self, instance_id: str) -> int:
        prompts = self._states.state(instance_id).prompts
        return prompts.others if prompts else 0


def reasons_sentence(reasons: Mapping[str, str]) -> str:
    """By the names of instances, a reason that several have said once: `a, b: no route to host; c: …`."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(those)}: {reason}" for reason, those in names.items())


def usable_key(instance: Instance) -> InstanceKey | None:
    """None for an address that cannot be read, which the directory lets nobody write."""
    try:
        return key_of_instance(instance)
    except InvalidAddress:
        return None


def is_same_machine(known: InstanceKey | None, asked: InstanceKey) -> bool:
    if known is None:
        return False
    one, other = known.address, asked.address
    return (one.host, one.port, one.user, known.comfyui_port) == (
        other.host,
        other.port,
        other.user,
        asked.comfyui_port,
    )
