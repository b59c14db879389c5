"""Watching a run by asking for it, soon after something has changed and rarely while nothing does."""

import time
from collections.abc import Callable, Iterator

from comfyui_workflow.client.documents import ProgressDocument
from comfyui_workflow.client.errors import ServerUnreachable, TimedOut

FIRST_POLL_S = 0.3
LONGEST_POLL_S = 2.0
AWAY_LIMIT_S = 600.0
"""A server may be restarted while it is watched; this long, it is not coming back."""

Trouble = Callable[[ServerUnreachable, float], None]
"""Called with what keeps us from seeing the run, and for how many seconds it has."""


def watch(
    ask: Callable[[], ProgressDocument],
    *,
    timeout_s: float | None,
    on_trouble: Trouble,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[ProgressDocument]:
    """Each picture that differs from the one before, the finished one last; after trouble, one in any case.
    Raises: TimedOut; ServerUnreachable when the server is away for too long; what else `ask` raises."""
    began_s = last_seen_s = clock()
    known: ProgressDocument | None = None
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
        _pause(poll_s, timeout_s, began_s, pause, clock)


def _pause(
    poll_s: float,
    timeout_s: float | None,
    began_s: float,
    pause: Callable[[float], None],
    clock: Callable[[], float],
) -> None:
    left_s = poll_s if timeout_s is None else began_s + timeout_s - clock()
    if left_s <= 0:
        raise TimedOut(f"The run has not ended within {timeout_s:g} s. It goes on")
    pause(min(poll_s, left_s))
