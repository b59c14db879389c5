"""Following a run to its end, on whatever shows it."""

import time
from collections.abc import Callable
from typing import Protocol

from comfyui_workflow.cli.client import ServerClient, ServerUnreachable
from comfyui_workflow.cli.documents import ProgressDocument

NEAR_POLL_S = 0.3
FAR_POLL_S = 1.0
AWAY_LIMIT_S = 600.0
"""A server may be restarted while it is watched; this long, it is not coming back."""


class Display(Protocol):
    def show(self, progress: ProgressDocument) -> None: ...

    def show_trouble(self, sentence: str) -> None:
        """Until the next `show`."""


def follow(
    client: ServerClient,
    workflow_id: str,
    display: Display,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> ProgressDocument:
    """The finished run. Raises: RequestRefused; ServerUnreachable when the server is away for too long."""
    poll_s = NEAR_POLL_S if client.is_on_this_machine else FAR_POLL_S
    last_seen_s = clock()
    while True:
        try:
            progress = client.progress(workflow_id)
        except ServerUnreachable as error:
            away_s = clock() - last_seen_s
            if away_s > AWAY_LIMIT_S:
                raise
            display.show_trouble(f"{error} (for {away_s:.0f} s now); asking again")
        else:
            last_seen_s = clock()
            display.show(progress)
            if progress.status.is_finished:
                return progress
        pause(poll_s)
