"""The scheduler's view of the instances: their state, and the free slots of each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from comfyui_workflow.errors import InvalidAddress
from comfyui_workflow.instances.model import Instance, key_of_instance
from comfyui_workflow.instances.state import InstanceState, Reachability
from comfyui_workflow.scheduling.choice import Candidate
from comfyui_workflow.scheduling.pending_queue import (
    AnyWithTag,
    AtAddress,
    NamedInstance,
    PendingRun,
    QueueTarget,
)
from comfyui_workflow.sessions.session import InstanceKey

FIRST_LOOK_S = 3.0
"""Time in which a run for `any` waits for instances whose state is not known yet. Afterwards the best known
instance is chosen."""


Order = tuple[int, str]
"""Sort key: priority first, then age, as in `PendingRun.order`."""

HEAD_START_S = 2.0
"""Time in which a ready run waits for a run that goes before it and is not ready. The GPU may be idle in that
time."""


@dataclass(kw_only=True)
class Staging:
    """A run that is assigned to the instance and prepares its prompt: it has not submitted it yet."""

    order: Order
    is_ready: bool = False
    waits_for_files: bool = False
    """The run waits until the files of another run are downloaded. Meanwhile it does not block other runs."""
    head_start_until_s: float | None = None

    def keeps_others_waiting(self, at_s: float) -> bool:
        """A ready run blocks the runs behind it. A run that is not ready blocks them once, for
        `HEAD_START_S`, because it may be uploading large files. `at_s` is monotonic."""
        if self.head_start_until_s is None:
            self.head_start_until_s = at_s + HEAD_START_S
        return not self.waits_for_files and (self.is_ready or at_s < self.head_start_until_s)


@dataclass
class Slots:
    """The slots of one instance: the runs that prepare a prompt for it, and the runs that have a prompt
    there. Runs that download their outputs use no slot, because the GPU is free again. Not thread-safe: the
    owner holds a lock.

    Prompts are submitted one at a time, in the order of their runs."""

    staging: dict[str, Staging] = field(default_factory=dict)
    with_prompt: set[str] = field(default_factory=set)
    protected: set[str] = field(default_factory=set)
    """Runs whose files on the instance another prompt could overwrite. A run is in this set from before its
    submission until it leaves the instance."""
    submitting: str | None = None
    """The run whose prompt is being submitted now."""
    models: frozenset[str] = frozenset()
    """Model files of our last prompt, which was submitted at `models_at`."""
    models_at: datetime | None = None

    @property
    def taken(self) -> int:
        return len(self.staging) + len(self.with_prompt)

    def loaded(self, emptied_at: datetime | None) -> frozenset[str]:
        """The model files of the last prompt, unless the memory of the instance was freed since."""
        is_gone = emptied_at is not None and self.models_at is not None and emptied_at >= self.models_at
        return frozenset() if is_gone else self.models

    def stage(self, run_id: str, order: Order) -> None:
        """Adds a run that prepares its prompt."""
        self.staging[run_id] = Staging(order=order)

    def request_slot(self, run_id: str, most: int, at_s: float, *, may_overwrite: bool = False) -> bool:
        """Marks the run as ready, and returns True if it may submit its prompt now. The caller then calls
        `end_request`, also if the submission fails. A run with `may_overwrite` could overwrite files of
        another run: it waits until those are downloaded, and its own files are protected from the next run of
        that kind. `at_s` is monotonic."""
        if not self._is_next(run_id, most, at_s):
            return False
        if may_overwrite:
            if self._must_wait_for_files(run_id):
                return False
            self.protected.add(run_id)
        self.take_slot(run_id)
        self.submitting = run_id
        return True

    def hold(self, run_id: str) -> bool:
        """Lets no prompt be submitted until `end_request`. False while one is being submitted."""
        if self.submitting is not None:
            return False
        self.submitting = run_id
        return True

    def _must_wait_for_files(self, run_id: str) -> bool:
        """True if files of another run are protected, or if an earlier run waits for files."""
        requesting = self.staging.get(run_id)
        waits_for_files = bool(self.protected - {run_id})
        if requesting is not None:
            before = (each for each in self.staging.values() if each.order < requesting.order)
            requesting.waits_for_files = waits_for_files or any(each.waits_for_files for each in before)
            return requesting.waits_for_files
        return waits_for_files

    def _is_next(self, run_id: str, most: int, at_s: float) -> bool:
        requesting = self.staging.get(run_id)
        if requesting is not None:
            requesting.is_ready = True
        if self.submitting is not None:
            return False
        if requesting is None:  # a prompt is submitted again, after it was lost or has ended
            return run_id in self.with_prompt or len(self.with_prompt) < most
        if len(self.with_prompt) >= most:
            return False
        before = (each for each in self.staging.values() if each.order < requesting.order)
        waits_for = [each for each in before if each.keeps_others_waiting(at_s)]
        return not waits_for

    def head_start_left_s(self, run_id: str, at_s: float) -> float | None:
        """Remaining seconds in which the run waits for earlier runs that are not ready. None if the run does
        not wait for that."""
        requesting = self.staging.get(run_id)
        head_starts = [
            each.head_start_until_s - at_s
            for each in self.staging.values()
            if requesting is not None
            and each.order < requesting.order
            and each.head_start_until_s is not None
            and each.head_start_until_s > at_s
        ]
        return min(head_starts, default=None)

    def end_request(self, run_id: str) -> None:
        """Ends the request of the run, with or without a submission. The next run may submit."""
        if self.submitting == run_id:
            self.submitting = None
        if run_id in self.staging:
            self.staging[run_id].is_ready = self.staging[run_id].waits_for_files = False

    def is_requesting(self, run_id: str) -> bool:
        """True if the run is ready and waits for the submission slot."""
        return run_id in self.staging and self.staging[run_id].is_ready

    def waits_for_files(self, run_id: str) -> bool:
        """True if the run waits only for the files of another run."""
        return run_id in self.staging and self.staging[run_id].waits_for_files

    def take_slot(self, run_id: str) -> None:
        """Moves the run from those that prepare a prompt to those that have one."""
        self.staging.pop(run_id, None)
        self.with_prompt.add(run_id)

    def protect_files(self, run_id: str) -> None:
        """Protects the run's files from other prompts until it leaves the instance."""
        self.protected.add(run_id)

    def set_loaded_models(self, models: frozenset[str], at: datetime) -> None:
        """`at` is a time of the wall clock."""
        self.models, self.models_at = models, at

    def release_slot(self, run_id: str) -> None:
        """Call it when the prompt has ended. The files of the run stay protected."""
        self.end_request(run_id)
        self.staging.pop(run_id, None)
        self.with_prompt.discard(run_id)

    def leave(self, run_id: str) -> None:
        """Removes the run from the instance: its slot is free, and its files are no longer protected."""
        self.release_slot(run_id)
        self.protected.discard(run_id)

    def ahead_of(self, run_id: str) -> int:
        """The number of runs and prompts of ours before this run."""
        mine = self.staging.get(run_id)
        before = (each for each in self.staging.values() if mine is None or each.order < mine.order)
        return len(self.with_prompt) + sum(1 for _ in before)


class Registry(Protocol):
    """The named instances. Both methods may read a file that a person edits."""

    def all(self) -> Sequence[Instance]: ...

    def get(self, id_or_name: str) -> Instance | None: ...


class InstanceStates(Protocol):
    def state(self, instance_id: str) -> InstanceState:
        """The last known state. Sends no request."""


class Capacity:
    """The instances in their last known state, and the slots of each. Not thread-safe: the owner holds a
    lock."""

    def __init__(self, states: InstanceStates, *, most_prompts: int, most_staging: int) -> None:
        """`most_prompts`: maximum number of our prompts on one instance at a time. `most_staging`: maximum
        number of runs that upload inputs there meanwhile."""
        self.most_prompts = most_prompts
        self._states = states
        self._most_staging = most_staging
        self._instances: tuple[Instance, ...] = ()
        self._by_id: dict[str, Instance] = {}
        self._slots: dict[InstanceKey, Slots] = {}

    @property
    def instances(self) -> tuple[Instance, ...]:
        return self._instances

    def update_instances(self, instances: Sequence[Instance]) -> None:
        """Replaces the list of instances."""
        self._instances = tuple(instances)
        self._by_id = {each.id: each for each in instances}

    def slots_of(self, key: InstanceKey) -> Slots:
        return self._slots.setdefault(key, Slots())

    def has_room(self, key: InstanceKey) -> bool:
        return self.slots_of(key).taken < self.most_prompts + self._most_staging

    def instance(self, instance_id: str) -> Instance | None:
        return self._by_id.get(instance_id)

    def with_tag(self, tag: str) -> list[Instance]:
        return [instance for instance in self._instances if instance.is_eligible_for(tag)]

    def ready(self, tag: str) -> Iterator[tuple[Instance, InstanceKey]]:
        for instance in self.with_tag(tag):
            key = usable_key(instance)
            if key is not None and self._states.state(instance.id).is_ready:
                yield instance, key

    def is_first_look_due(self, tag: str, at: datetime) -> bool:
        """True if an instance that may be the best one is connecting for the first time."""
        states = [self._states.state(instance.id) for instance in self.with_tag(tag)]
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
                ahead=self.slots_of(key).taken + self._prompts_of_others(instance.id),
                loaded=self.slots_of(key).loaded(self._states.state(instance.id).memory_emptied_at),
            )
            for instance, key in self.ready(tag)
            if instance.id not in refused_by and self.has_room(key)
        ]

    def keys_for(self, target: QueueTarget) -> list[InstanceKey]:
        """The instances that a run with this target may use now, with free slots or not."""
        match target:
            case AnyWithTag():
                return [key for _, key in self.ready(target.tag)]
            case NamedInstance():
                instance = self._by_id.get(target.instance_id)
                key = usable_key(instance) if instance else None
                return [] if key is None else [key]
            case AtAddress():
                return [target.key]

    def instance_at(self, key: InstanceKey) -> Instance | None:
        """The instance of the directory that has this address, if there is one."""
        return next(
            (each for each in self._instances if is_same_machine(usable_key(each), key)),
            None,
        )

    def position(self, run: PendingRun, ahead: int) -> int:
        """The number of runs and prompts before this run."""
        return ahead + min((self.slots_of(key).taken for key in self.keys_for(run.target)), default=0)

    def why_waiting(self, run: PendingRun, refusals: Mapping[str, str]) -> str:
        """`refusals`: reasons by instance id, why the instance cannot run it."""
        if not isinstance(run.target, AnyWithTag):
            return f"Waiting for a free slot: the instance gets {self.most_prompts} prompts at a time"
        tagged = self.with_tag(run.target.tag)
        if not tagged:
            which = f" with the tag {run.target.tag}" if run.target.tag else ""
            return f"Waiting for an instance: none{which} is enabled"
        if self._is_full_for(run):
            return f"Waiting for a free slot: each instance gets {self.most_prompts} prompts at a time"
        why = {each.name: refusals.get(each.id) or self._why_not(each) for each in tagged}
        return f"Waiting for an instance. {reasons_sentence(why)}"

    def _is_full_for(self, run: PendingRun) -> bool:
        return isinstance(run.target, AnyWithTag) and any(
            instance.id not in run.refused_by for instance, _ in self.ready(run.target.tag)
        )

    def _why_not(self, instance: Instance) -> str:
        state = self._states.state(instance.id)
        return state.trouble or f"it is {state.reachability.value}"

    def _prompts_of_others(self, instance_id: str) -> int:
        prompts = self._states.state(instance_id).prompts
        return prompts.others if prompts else 0


def reasons_sentence(reasons: Mapping[str, str]) -> str:
    """Groups the names of instances by reason: `a, b: no route to host; c: …`."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(those)}: {reason}" for reason, those in names.items())


def usable_key(instance: Instance) -> InstanceKey | None:
    """None for an address that cannot be parsed. The directory accepts no such address."""
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
