"""The runs that may not start yet: one of many is found and taken out as fast as one of few."""

import heapq
from collections.abc import Iterator
from datetime import datetime


class LaterRuns:
    """To be guarded by its owner."""

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
