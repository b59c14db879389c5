"""When runs may start: those that wait for a time, and the time between two runs of one batch."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Stagger:
    """The time between the starts of two runs of a batch."""

    batch_id: str
    seconds: float


class Pacing:
    """Keeps the time between two runs of a batch. To be guarded by its owner.

    Each turn comes so long after the one before, so that nobody is prepared hours too early; and so does each
    prompt: turns may last, and end at once when instances become free."""

    def __init__(self) -> None:
        self._turns: dict[str, datetime | None] = {}
        self._starts: dict[str, datetime | None] = {}

    def knows(self, batch_id: str) -> bool:
        return batch_id in self._turns

    def begin(self, batch_id: str, last_start: datetime | None) -> None:
        """`last_start`: as far as runs tell that were started before this server was."""
        self._turns.setdefault(batch_id, last_start)
        self._starts.setdefault(batch_id, last_start)

    def turn_at(self, stagger: Stagger) -> datetime | None:
        """When the next run of the batch may have its turn; None at once."""
        return self._next(self._turns, stagger)

    def start_at(self, stagger: Stagger) -> datetime | None:
        return self._next(self._starts, stagger)

    def turn_given(self, stagger: Stagger, at: datetime) -> None:
        self._turns[stagger.batch_id] = at

    def started(self, stagger: Stagger, at: datetime) -> None:
        self._starts[stagger.batch_id] = at

    def _next(self, last: dict[str, datetime | None], stagger: Stagger) -> datetime | None:
        before = last.get(stagger.batch_id)
        return None if before is None else before + timedelta(seconds=stagger.seconds)


class DelayQueue:
    """The runs that may not start yet: one of many is found and taken out as fast as one of few. To be
    guarded by its owner."""

    def __init__(self) -> None:
        self._times: dict[str, datetime] = {}
        self._soonest: list[tuple[datetime, str]] = []
        """Those that were removed, or have another time now, are still in it, and are passed over."""

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._times

    def get(self, run_id: str) -> datetime | None:
        return self._times.get(run_id)

    @property
    def soonest(self) -> datetime | None:
        """When the next one may start, or somebody might have who was removed."""
        return self._soonest[0][0] if self._soonest else None

    def add(self, run_id: str, at: datetime) -> None:
        """In place of what was known of it."""
        self._times[run_id] = at
        heapq.heappush(self._soonest, (at, run_id))

    def remove(self, run_id: str) -> None:
        self._times.pop(run_id, None)

    def take_due(self, at: datetime) -> Iterator[str]:
        """They are no longer among them."""
        while self._soonest and self._soonest[0][0] <= at:
            time, run_id = heapq.heappop(self._soonest)
            if self._times.get(run_id) == time:
                del self._times[run_id]
                yield run_id
