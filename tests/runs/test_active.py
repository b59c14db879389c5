"""The overview of executing and waiting runs."""

from dataclasses import replace

from comfyui_workflow.runs.active import MOST_EXECUTING, MOST_WAITING, underway
from comfyui_workflow.runs.model import Run, RunStatus
from tests.runs.test_state_machine import new_run


def run(number: int, *, status: RunStatus = RunStatus.QUEUED, priority: int = 0) -> Run:
    return replace(new_run(), run_id=f"comfyui_workflow_{number:04}_0", status=status, priority=priority)


def test_the_next_ones_by_priority_and_then_by_age() -> None:
    runs = [run(1), run(2, priority=5), run(3, priority=-1), run(4, priority=5)]
    assert underway(runs).waiting == (runs[1], runs[3], runs[0], runs[2])
    assert underway(runs).executing == ()


def test_few_are_told_and_all_are_counted() -> None:
    runs = [run(number, status=RunStatus.EXECUTING) for number in range(30)]
    waiting = [run(number) for number in range(30, 1030)]
    found = underway([*runs, *waiting])
    assert found.executing == tuple(runs[:MOST_EXECUTING])
    assert found.waiting == tuple(waiting[:MOST_WAITING])
    assert (found.executing_count, found.waiting_count) == (30, 1000)
