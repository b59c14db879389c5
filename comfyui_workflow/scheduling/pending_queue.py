"""The runs that wait for their turn: no thread, no connection, a few hundred bytes each."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from comfyui_workflow.scheduling.pacing import Stagger
from comfyui_workflow.sessions.session import InstanceKey


@dataclass(frozen=True, kw_only=True)
class AnyOf:
    """Whichever enabled instance has the tag; every one has the empty tag."""

    tag: str


@dataclass(frozen=True, kw_only=True)
class Named:
    """One instance of the directory."""

    instance_id: str


@dataclass(frozen=True, kw_only=True)
class At:
    """Where an ssh string leads, which is no instance of the directory."""

    key: InstanceKey


Target = AnyOf | Named | At


@dataclass(frozen=True, kw_only=True)
class PendingRun:
    """A run that waits for its turn. Ids sort by age. `refused_by` are instances that cannot run it."""

    run_id: str
    priority: int
    target: Target
    refused_by: frozenset[str] = field(default=frozenset())
    stagger: Stagger | None = None

    @property
    def row(self) -> "Row":
        return (self.target, self.refused_by, self.stagger)

    @property
    def order(self) -> tuple[int, str]:
        return (-self.priority, self.run_id)


Row = tuple[Target, frozenset[str], Stagger | None]


class PendingQueue:
    """Sorted by priority, then by age. To be guarded by its owner.

    Runs of one target that were refused by the same instances stand in one row, but those of a staggered
    batch in a row of their own: whoever has a free place looks at the head of each row, however many stand
    behind it."""

    def __init__(self) -> None:
        self._runs: dict[str, PendingRun] = {}
        self._rows: dict[Row, list[tuple[int, str]]] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._runs

    def get(self, run_id: str) -> PendingRun | None:
        return self._runs.get(run_id)

    def add(self, run: PendingRun) -> None:
        """In place of what was known of it."""
        self.remove(run.run_id)
        self._runs[run.run_id] = run
        insort(self._rows.setdefault(run.row, []), run.order)

    def remove(self, run_id: str) -> PendingRun | None:
        run = self._runs.pop(run_id, None)
        if run is not None:
            row = self._rows[run.row]
            del row[bisect_left(row, run.order)]
            if not row:
                del self._rows[run.row]
        return run

    def heads(self) -> list[PendingRun]:
        """The first of each row, the one that should go first of all before the others."""
        heads = [self._runs[row[0][1]] for row in self._rows.values()]
        return sorted(heads, key=lambda run: run.order)

    def row(self, head: PendingRun) -> Iterator[PendingRun]:
        return (self._runs[each[1]] for each in list(self._rows[head.row]))

    def ahead_of(self, run: PendingRun) -> int:
        """How many that wait for the same go before it."""
        rows = (row for (target, *_), row in self._rows.items() if target == run.target)
        return sum(bisect_left(row, run.order) for row in rows)
