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

    def __contains__(self, workflow_id: object) -> bool:
        return workflow_id in self._times

    def get(self, workflow_id: str) -> datetime | None:
        return self._times.get(workflow_id)

    @property
    def soonest(self) -> datetime | None:
        """When the next one may start, or somebody might have who was removed."""
        return self._soonest[0][0] if self._soonest else None

    def add(self, workflow_id: str, at: datetime) -> None:
        """In place of what was known of it."""
        self._times[workflow_id] = at
        heapq.heappush(self._soonest, (at, workflow_id))

    def remove(self, workflow_id: str) -> None:
        self._times.pop(workflow_id, None)

    def take_due(self, at: datetime) -> Iterator[str]:
        """They are no longer among them."""
        while self._soonest and self._soonest[0][0] <= at:
            time, workflow_id = heapq.heappop(self._soonest)
            if self._times.get(workflow_id) == time:
                del self._times[workflow_id]
                yield workflow_id
