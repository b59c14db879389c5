"""Queue of the runs that wait to be started. A waiting run uses no thread, no connection, and a few hundred
bytes."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from comfyui_workflow.instances.model import Instance
from comfyui_workflow.scheduling.pacing import Stagger
from comfyui_workflow.sessions.session import InstanceKey


@dataclass(frozen=True, kw_only=True)
class AnyWithTag:
    """Any enabled instance that has the tag. Every instance has the empty tag.

    The other fields are those of a part (`runs.parts`)."""

    tag: str
    among: tuple[str, ...] = ()
    """Ids of the instances that may take it; all with the tag if it is empty."""
    without: tuple[str, ...] = ()
    first: str | None = None
    """Id of the instance that takes it while it is ready."""
    parent_id: str | None = None
    """Parts of one run go to different instances, while there are any."""

    def allows(self, instance: Instance) -> bool:
        """A run that names its instances may use a disabled one too."""
        if instance.id in self.without:
            return False
        if self.among:
            return instance.id in self.among and (not self.tag or instance.has_tag(self.tag))
        return instance.is_eligible_for(self.tag)


@dataclass(frozen=True, kw_only=True)
class NamedInstance:
    """One instance of the directory."""

    instance_id: str


@dataclass(frozen=True, kw_only=True)
class AtAddress:
    """An address from an ssh string that is no instance of the directory."""

    key: InstanceKey


QueueTarget = AnyWithTag | NamedInstance | AtAddress
"""The target of a run without the text that the user wrote: runs with equal targets wait in one group."""


@dataclass(frozen=True, kw_only=True)
class PendingRun:
    """A run that waits to be started. Ids sort by age. `refused_by` contains the instances that cannot run
    it."""

    run_id: str
    priority: int
    target: QueueTarget
    refused_by: frozenset[str] = field(default=frozenset())
    stagger: Stagger | None = None

    @property
    def group_key(self) -> "GroupKey":
        return (self.target, self.refused_by, self.stagger)

    @property
    def order(self) -> tuple[int, str]:
        return (-self.priority, self.run_id)


GroupKey = tuple[QueueTarget, frozenset[str], Stagger | None]


class PendingQueue:
    """Sorted by priority, then by age. Not thread-safe: the owner holds a lock.

    How it works. Runs with the same target, refused by the same instances, form one group; each staggered
    batch has a group of its own. All runs of a group can use the same instances. So the scheduler checks only
    the head of each group, however long the group is."""

    def __init__(self) -> None:
        self._runs: dict[str, PendingRun] = {}
        self._groups: dict[GroupKey, list[tuple[int, str]]] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._runs

    def get(self, run_id: str) -> PendingRun | None:
        return self._runs.get(run_id)

    def add(self, run: PendingRun) -> None:
        """Replaces an earlier entry of the run."""
        self.remove(run.run_id)
        self._runs[run.run_id] = run
        insort(self._groups.setdefault(run.group_key, []), run.order)

    def remove(self, run_id: str) -> PendingRun | None:
        run = self._runs.pop(run_id, None)
        if run is not None:
            group = self._groups[run.group_key]
            del group[bisect_left(group, run.order)]
            if not group:
                del self._groups[run.group_key]
        return run

    def heads(self) -> list[PendingRun]:
        """The first run of each group, in the order of all runs."""
        heads = [self._runs[group[0][1]] for group in self._groups.values()]
        return sorted(heads, key=lambda run: run.order)

    def group(self, head: PendingRun) -> Iterator[PendingRun]:
        return (self._runs[each[1]] for each in list(self._groups[head.group_key]))

    def ahead_of(self, run: PendingRun) -> int:
        """The number of runs with the same target that go before this one."""
        groups = (group for (target, *_), group in self._groups.items() if target == run.target)
        return sum(bisect_left(group, run.order) for group in groups)
