"""The time between two runs of one batch: kept when their turns are given, and again when they submit."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Stagger:
    """Of a batch whose runs start so far apart."""

    batch_id: str
    seconds: float


class Staggering:
    """To be guarded by its owner.

    Each turn comes so long after the one before, so that nobody is prepared hours too early; and so does each
    prompt: turns may last, and end at once when instances become free."""

    def __init__(self, last_start_of: Callable[[str], datetime | None]) -> None:
        """`last_start_of`: of that batch, as far as runs tell that were started before this server was."""
        self._last_start_of = last_start_of
        self._turns: dict[str, datetime | None] = {}
        self._starts: dict[str, datetime | None] = {}

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
        if stagger.batch_id not in last:
            last[stagger.batch_id] = self._last_start_of(stagger.batch_id)
        before = last[stagger.batch_id]
        return None if before is None else before + timedelta(seconds=stagger.seconds)
