"""Watching a run or a batch by asking for it: soon after something has changed, rarely while nothing does."""

import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from comfyui_workflow.client.errors import ServerUnreachable, TimedOut
from comfyui_workflow.runs.status import RunStatus

FIRST_POLL_S = 0.3
LONGEST_POLL_S = 2.0
AWAY_LIMIT_S = 600.0
"""A server may be restarted while it is watched; this long, it is not coming back."""

Trouble = Callable[[ServerUnreachable, float], None]
"""Called with what keeps us from seeing it, and for how many seconds it has."""


class Watched(Protocol):
    @property
    def status(self) -> RunStatus: ...


SomeProgress = TypeVar("SomeProgress", bound=Watched)


def watch(
    ask: Callable[[], SomeProgress],
    *,
    timeout_s: float | None,
    on_trouble: Trouble,
    what: str = "The run",
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[SomeProgress]:
    """Each picture that differs from the one before, the finished one last; after trouble, one in any case.
    Raises: TimedOut; ServerUnreachable when the server is away for too long; what else `ask` raises."""
    began_s = last_seen_s = clock()
    known: SomeProgress | None = None
    poll_s = FIRST_POLL_S
    while True:
        try:
            progress = ask()
        except ServerUnreachable as error:
            known, away_s = None, clock() - last_seen_s
            if away_s > AWAY_LIMIT_S:
                raise
            on_trouble(error, away_s)
        else:
            last_seen_s = clock()
            poll_s = min(1.5 * poll_s, LONGEST_POLL_S) if progress == known else FIRST_POLL_S
            if progress != known:
                known = progress
                yield progress
            if progress.status.is_finished:
                return
        left_s = poll_s if timeout_s is None else began_s + timeout_s - clock()
        if left_s <= 0:
            raise TimedOut(f"{what} has not ended within {timeout_s:g} s. It goes on")
        pause(min(poll_s, left_s))
