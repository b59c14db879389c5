"""Polling of a run or a batch: after FIRST_POLL_S while it changes, up to LONGEST_POLL_S while it does
not."""

import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from comfyui_workflow.client.errors import ServerUnreachable, TimedOut
from comfyui_workflow.runs.status import RunStatus

FIRST_POLL_S = 0.3
LONGEST_POLL_S = 2.0
AWAY_LIMIT_S = 600.0
"""A restart of the server is waited for; a server that is away for longer counts as lost."""

Trouble = Callable[[ServerUnreachable, float], None]
"""Called with the error, and the seconds since the last response."""


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
    """Yields each document that differs from the one before, the finished one last. After an error the next
    document is yielded in any case.
    Raises: TimedOut; ServerUnreachable if the server is away for longer than AWAY_LIMIT_S; and what `ask`
    raises."""
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
