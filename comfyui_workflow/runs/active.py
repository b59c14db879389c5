"""Selects the executing runs and the next waiting runs for the overview."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from comfyui_workflow.runs.model import Run, RunStatus

MOST_EXECUTING = 20
MOST_WAITING = 5


@dataclass(frozen=True, kw_only=True)
class Underway:
    executing: tuple[Run, ...]
    """Oldest first, at most `MOST_EXECUTING`."""
    waiting: tuple[Run, ...]
    """In the order in which an instance takes them, at most `MOST_WAITING`."""
    executing_count: int
    waiting_count: int


def underway(unfinished: Iterable[Run]) -> Underway:
    """Splits the unfinished runs, which come oldest first, into executing and waiting runs."""
    executing: list[Run] = []
    waiting: list[Run] = []
    for run in unfinished:
        (executing if run.status is RunStatus.EXECUTING else waiting).append(run)
    return Underway(
        executing=tuple(executing[:MOST_EXECUTING]),
        waiting=tuple(heapq.nsmallest(MOST_WAITING, waiting, key=lambda run: (-run.priority, run.run_id))),
        executing_count=len(executing),
        waiting_count=len(waiting),
    )
