"""Tests of the cancellation of one prompt, with a new and an old ComfyUI."""

from typing import cast

import pytest

from comfyui_workflow.comfyui.cancel import Canceller
from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.queue import QueueSnapshot


class Instance:
    """A ComfyUI that records its requests."""

    def __init__(self, *, has_route: bool, running: str | None = None, pending: str | None = None) -> None:
        self.has_route = has_route
        self.running = () if running is None else (running,)
        self.pending = () if pending is None else (pending,)
        self.asked: list[str] = []

    def cancel_job(self, prompt_id: str) -> bool:
        self.asked.append(f"cancel {prompt_id}")
        return self.has_route

    def queue(self) -> QueueSnapshot:
        self.asked.append("queue")
        return QueueSnapshot(running=self.running, pending=self.pending, correlations={})

    def delete_pending(self, prompt_id: str) -> None:
        self.asked.append(f"delete {prompt_id}")

    def interrupt(self, prompt_id: str) -> None:
        self.asked.append(f"interrupt {prompt_id}")


@pytest.mark.parametrize(
    ("instance", "asked"),
    [
        (Instance(has_route=True, running="p"), ["cancel p", "cancel p"]),
        (Instance(has_route=False, running="p"), ["cancel p", *["queue", "interrupt p"] * 2]),
        (Instance(has_route=False, pending="p"), ["cancel p", *["queue", "delete p"] * 2]),
        (Instance(has_route=False, running="other"), ["cancel p", "queue", "queue"]),
    ],
)
def test_one_prompt_is_cancelled_and_no_other(instance: Instance, asked: list[str]) -> None:
    now_s = 0.0
    canceller = Canceller(cast(ComfyUIClient, instance), "p", lambda: now_s)
    canceller.ask()
    canceller.ask()  # too soon
    now_s = 1.0
    canceller.ask()
    assert instance.asked == asked
