"""What the dispatcher decides by: who waits, which instances there are, and how many places each has left."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from comfyui_workflow.errors import InvalidAddress
from comfyui_workflow.instances.model import Instance, key_of_instance
from comfyui_workflow.instances.state import InstanceState, Reachability
from comfyui_workflow.scheduling.choice import Candidate
from comfyui_workflow.scheduling.pending_queue import AnyOf, At, Named, Target, Waiting
from comfyui_workflow.scheduling.slots import Seats
from comfyui_workflow.sessions.session import InstanceKey

FIRST_LOOK_S = 3.0
"""How long a run for `any` waits for what is not known yet; then it takes the best of what is."""


class Directory(Protocol):
    def all(self) -> Sequence[Instance]: ...

    def get(self, id_or_name: str) -> Instance | None: ...


class States(Protocol):
    def state(self, instance_id: str) -> InstanceState: ...


@dataclass(frozen=True, kw_only=True)
class Floor:
    """To be guarded by its owner."""

    directory: Directory
    states: States
    most_prompts: int
    """Prompts of ours on one instance at a time."""
    most_on_the_way: int
    """Runs that bring their inputs there meanwhile."""
    seats: dict[InstanceKey, Seats] = field(default_factory=dict)

    def seats_of(self, key: InstanceKey) -> Seats:
        return self.seats.setdefault(key, Seats())

    def has_room(self, key: InstanceKey) -> bool:
        return self.seats_of(key).taken < self.most_prompts + self.most_on_the_way

    def instance(self, instance_id: str) -> Instance | None:
        return self.directory.get(instance_id)

    def meant(self, tag: str) -> list[Instance]:
        return [instance for instance in self.directory.all() if instance.is_meant_by(tag)]

    def ready(self, tag: str) -> Iterator[tuple[Instance, InstanceKey]]:
        for instance in self.meant(tag):
            key = usable_key(instance)
            if key is not None and self.states.state(instance.id).is_ready:
                yield instance, key

    def is_first_look_due(self, tag: str, at: datetime) -> bool:
        """Whether an instance that may be the best one is just being looked at for the first time."""
        states = [self.states.state(instance.id) for instance in self.meant(tag)]
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
                ahead=self.seats_of(key).taken + self._others(instance.id),
                loaded=self.seats_of(key).loaded(self.states.state(instance.id).memory_emptied_at),
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
                instance = self.directory.get(target.instance_id)
                key = usable_key(instance) if instance else None
                return [] if key is None else [key]
            case At():
                return [target.key]

    def instance_at(self, key: InstanceKey) -> Instance | None:
        """The instance that an ssh string leads to, if it is one of the directory."""
        return next(
            (each for each in self.directory.all() if is_same_machine(usable_key(each), key)),
            None,
        )

    def position(self, run: Waiting, ahead: int) -> int:
        """Runs that go before it, and what is there already."""
        return ahead + min((self.seats_of(key).taken for key in self.keys_for(run.target)), default=0)

    def why_waiting(self, run: Waiting, refusals: Mapping[str, str]) -> str:
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

    def _is_full_for(self, run: Waiting) -> bool:
        return isinstance(run.target, AnyOf) and any(
            instance.id not in run.refused_by for instance, _ in self.ready(run.target.tag)
        )

    def _why_not(self, instance: Instance) -> str:
        state = self.states.state(instance.id)
        return state.trouble or f"it is {state.reachability.value}"

    def _others(self, instance_id: str) -> int:
        prompts = self.states.state(instance_id).prompts
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
