"""Tests that a prompt that never ends is told apart from one that takes long."""

from typing import cast

import pytest

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.stall_detector import StallDetector
from comfyui_workflow.errors import ComfyUIError, InstanceBroken

TRACE = """got prompt
Exception in thread Thread-1 (prompt_worker):
Traceback (most recent call last):
  File "/usr/lib/python3.11/threading.py", line 1045, in _bootstrap_inner
    self.run()
  File "/opt/ComfyUI/comfy_execution/graph.py", line 36, in get_node
    raise NodeNotFoundError(f"Node {node_id} not found")
comfy_execution.graph.NodeNotFoundError: Node 99 not found
"""


class Log:
    """A ComfyUI that serves only its log."""

    def __init__(self, text: str | None) -> None:
        self.text = text
        self.times_asked = 0

    def log(self) -> str:
        self.times_asked += 1
        if self.text is None:
            raise ComfyUIError("HTTP 404")
        return self.text


def watch(log: Log, clock: list[float], limit_s: float = 100) -> StallDetector:
    return StallDetector(cast(ComfyUIClient, log), limit_s, lambda: clock[0])


def test_a_dead_worker_is_known_soon_by_its_log() -> None:
    clock, log = [0.0], Log(TRACE)
    stall = watch(log, clock)
    clock[0] = 9
    stall.check(is_running=True)
    assert log.times_asked == 0
    clock[0] = 11
    with pytest.raises(InstanceBroken, match="Node 99 not found"):
        stall.check(is_running=False)


def test_a_short_limit_looks_at_the_log_before_it_is_over() -> None:
    """Else it would only say that the worker seems to be dead."""
    clock, log = [0.0], Log(TRACE)
    stall = watch(log, clock, limit_s=4)
    stall.record_progress()
    clock[0] = 1.9
    stall.check(is_running=True)
    assert log.times_asked == 0
    clock[0] = 2.1
    with pytest.raises(InstanceBroken, match="Node 99 not found"):
        stall.check(is_running=True)


def test_without_a_trace_silence_tells_and_any_sign_of_life_counts() -> None:
    clock = [0.0]
    for log in (Log(""), Log(None)):
        stall = watch(log, clock)
        clock[0] += 90
        stall.check(is_running=True)
        stall.record_progress()
        clock[0] += 90
        stall.check(is_running=True)
        clock[0] += 20
        stall.check(is_running=False)
        with pytest.raises(InstanceBroken, match="for 110 s without a sign of progress"):
            stall.check(is_running=True)


def test_a_long_silence_is_no_reason_to_read_the_log_all_the_time() -> None:
    clock, log = [0.0], Log("")
    stall = watch(log, clock, limit_s=0)
    for _ in range(3600):
        clock[0] += 1
        stall.check(is_running=True)
    assert log.times_asked < 12
