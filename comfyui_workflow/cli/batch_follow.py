"""Follows a batch until it ends, on a display."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from comfyui_workflow.cli.batch_rows import varying_inputs
from comfyui_workflow.client.batch_documents import BatchProgressDocument, BatchRunDocument
from comfyui_workflow.client.documents import SummaryDocument
from comfyui_workflow.client.errors import ServerUnreachable
from comfyui_workflow.client.server import WorkflowServer
from comfyui_workflow.client.watch import watch
from comfyui_workflow.runs.status import RunStatus

MOST_RUNNING = 50
"""Maximum number of running runs to fetch: more do not fit on a screen."""


@dataclass(frozen=True, kw_only=True)
class BatchView:
    """Snapshot of a batch for the display."""

    progress: BatchProgressDocument
    running: tuple[SummaryDocument, ...] = ()
    waiting: str | None = None
    """Message of a waiting run; set only while nothing runs."""

    @property
    def status(self) -> RunStatus:
        return self.progress.status


class BatchDisplay(Protocol):
    def show(self, view: BatchView) -> None: ...

    def show_trouble(self, sentence: str) -> None:
        """Shows an error until the next `show`."""


class RunNames:
    """Names of the runs of a batch for the user: a number from 1, and the inputs that differ between runs."""

    def __init__(self, runs: Sequence[BatchRunDocument]) -> None:
        self._numbers = {run.workflow_id: number for number, run in enumerate(runs, start=1)}
        self._varying = varying_inputs([run.inputs for run in runs])
        self._inputs = {run.workflow_id: self._differing(run.inputs) for run in runs}

    def number(self, workflow_id: str) -> int:
        return self._numbers.get(workflow_id, 0)

    def inputs(self, workflow_id: str) -> Mapping[str, Any]:
        return self._inputs.get(workflow_id, {})

    def _differing(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in inputs.items() if name in self._varying}


def follow_batch(
    client: WorkflowServer,
    batch_id: str,
    display: BatchDisplay,
    *,
    first_run: str,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> BatchProgressDocument:
    """Follows the batch and returns it when it has finished. Raises: as `follow` of a run."""

    def show_trouble(error: ServerUnreachable, away_s: float) -> None:
        display.show_trouble(f"{error} (for {away_s:.0f} s now); trying again")

    def look() -> BatchView:
        return _view(client, client.batches.progress(batch_id), first_run)

    views = watch(look, timeout_s=None, on_trouble=show_trouble, what="The batch", pause=pause, clock=clock)
    for view in views:
        display.show(view)
    return view.progress


def _view(client: WorkflowServer, progress: BatchProgressDocument, first_run: str) -> BatchView:
    if progress.status.is_finished:
        return BatchView(progress=progress)
    batch = progress.batch_id
    running = client.runs(MOST_RUNNING, batch=batch, statuses=[RunStatus.EXECUTING])
    waiting = None
    if not running and progress.status is RunStatus.QUEUED:
        waiting = client.progress(first_run).message
    elif not running:
        queued = client.runs(1, batch=batch, statuses=[RunStatus.QUEUED])
        waiting = queued[0].raw.get("message") if queued else None
    return BatchView(progress=progress, running=tuple(reversed(running)), waiting=waiting)
