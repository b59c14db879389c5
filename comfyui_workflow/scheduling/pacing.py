"""Delays the start of runs: start times, and the interval between two runs of one batch."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Stagger:
    """The minimum interval between the starts of two runs of a batch."""

    batch_id: str
    seconds: float


class Pacing:
    """Enforces the interval between two runs of a batch. Not thread-safe: the owner holds a lock.

    The interval is enforced twice. Between admissions, so that no run is prepared hours too early. And
    between submissions, because admitted runs may wait for a slot for different times, and all end their
    waits at once when instances become free."""

    def __init__(self) -> None:
        self._admissions: dict[str, datetime | None] = {}
        self._submissions: dict[str, datetime | None] = {}

    def knows(self, batch_id: str) -> bool:
        return batch_id in self._admissions

    def begin(self, batch_id: str, last_start: datetime | None) -> None:
        """`last_start`: the last start of a run of the batch before this server was started, as far as
        records show it."""
        self._admissions.setdefault(batch_id, last_start)
        self._submissions.setdefault(batch_id, last_start)

    def admission_at(self, stagger: Stagger) -> datetime | None:
        """The time from which the next run of the batch may be admitted; None for at once."""
        return self._next(self._admissions, stagger)

    def submission_at(self, stagger: Stagger) -> datetime | None:
        """The time from which the next run of the batch may submit its prompt; None for at once."""
        return self._next(self._submissions, stagger)

    def admitted(self, stagger: Stagger, at: datetime) -> None:
        self._admissions[stagger.batch_id] = at

    def submitted(self, stagger: Stagger, at: datetime) -> None:
        self._submissions[stagger.batch_id] = at

    def _next(self, last: dict[str, datetime | None], stagger: Stagger) -> datetime | None:
        before = last.get(stagger.batch_id)
        return None if before is None else before + timedelta(seconds=stagger.seconds)


class DelayQueue:
    """The runs that may not start yet, by start time. Adding and removing a run is fast for any number of
    runs. Not thread-safe: the owner holds a lock."""

    def __init__(self) -> None:
        self._times: dict[str, datetime] = {}
        self._soonest: list[tuple[datetime, str]] = []
        """A heap. It also contains entries of runs that were removed or have another time now. These are
        skipped."""

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._times

    def get(self, run_id: str) -> datetime | None:
        return self._times.get(run_id)

    @property
    def soonest(self) -> datetime | None:
        """The next start time. It may belong to a run that was removed."""
        return self._soonest[0][0] if self._soonest else None

    def add(self, run_id: str, at: datetime) -> None:
        """Replaces an earlier entry of the run."""
        self._times[run_id] = at
        heapq.heappush(self._soonest, (at, run_id))

    def remove(self, run_id: str) -> None:
        self._times.pop(run_id, None)

    def take_due(self, at: datetime) -> Iterator[str]:
        """Removes and yields the runs that are due."""
        while self._soonest and self._soonest[0][0] <= at:
            time, run_id = heapq.heappop(self._soonest)
            if self._times.get(run_id) == time:
                del self._times[run_id]
                yield run_id
