"""Inputs that are downloaded before their run is handed to the executor."""

import threading
from typing import Any

import pytest

from comfyui_workflow.execution import input_prefetch
from comfyui_workflow.execution.input_prefetch import InputPrefetcher
from comfyui_workflow.execution.live_progress import LiveProgress


class Executor:
    """Refuses the first run with a bug."""

    def __init__(self) -> None:
        self.asked = list[str]()
        self.has_both = threading.Event()

    def start(self, run_id: str) -> None:
        self.asked.append(run_id)
        if len(self.asked) == 1:
            raise RuntimeError("a bug")
        self.has_both.set()

    def stop(self, _timeout_s: float) -> bool:
        return True


class Run:
    is_finished = is_cancel_requested = False


class Journal:
    def get(self, _run_id: str) -> Run:
        return Run()

    def record(self, *_: object) -> None:
        pass


class Steps:
    def needs_inputs(self, _run: object) -> bool:
        return True

    def download_inputs(self, *_: object) -> None:
        pass


def test_a_run_that_cannot_be_started_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_prefetch, "AT_ONCE", 1)
    executor: Any = Executor()
    journal: Any = Journal()
    steps: Any = Steps()
    prefetcher = InputPrefetcher(executor, journal, steps, LiveProgress())
    prefetcher.start("a")
    prefetcher.start("b")
    assert executor.has_both.wait(10)
    assert executor.asked == ["a", "b"]
    prefetcher.stop(1)
