"""Follows a run until it ends, on a display."""

import time
from collections.abc import Callable
from typing import Protocol

from comfyui_workflow.client.documents import ProgressDocument
from comfyui_workflow.client.errors import ServerUnreachable
from comfyui_workflow.client.server import WorkflowServer


class Display(Protocol):
    def show(self, progress: ProgressDocument) -> None: ...

    def show_trouble(self, sentence: str) -> None:
        """Shows an error until the next `show`."""


def follow(
    client: WorkflowServer,
    workflow_id: str,
    display: Display,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> ProgressDocument:
    """Follows the run and returns it when it has finished. Raises: RequestRefused; ServerUnreachable if the
    server is away for too long."""

    def show_trouble(error: ServerUnreachable, away_s: float) -> None:
        display.show_trouble(f"{error} (for {away_s:.0f} s now); trying again")

    for progress in client.watch(workflow_id, on_trouble=show_trouble, pause=pause, clock=clock):
        display.show(progress)
    return progress
