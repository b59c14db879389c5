"""Waiting for the end of a prompt."""

import time

import pytest

from comfyui_workflow.client import (
    ComfyUI,
    Outcome,
    PromptFailed,
    PromptInterrupted,
    PromptLost,
    TimedOut,
)
from comfyui_workflow.comfyui import stall_detector
from comfyui_workflow.errors import InstanceBroken
from tests.sandbox.graphs import graph_with_a_link_to_nowhere, quick_graph, slow_graph
from tests.sandbox.running_comfyui import RunningComfyUI, wait_until


def until_at_work(running: RunningComfyUI) -> None:
    """Waits until the first node runs: an interrupt before it is lost."""
    wait_until(lambda: running.pace.done, what="a first step")


def test_a_success(comfyui: ComfyUI) -> None:
    entry = comfyui.run(quick_graph(), timeout_s=20)
    assert (entry.outcome, [each.filename for each in entry.outputs]) == (
        Outcome.SUCCESS,
        ["quick_00001_.png"],
    )
    assert entry.ui["2"]["images"][0]["type"] == "output"


def test_nothing_is_waited_for_that_is_over(comfyui: ComfyUI) -> None:
    began_s = time.monotonic()
    for color in range(20):
        comfyui.run(quick_graph(color=color), timeout_s=20)
    assert time.monotonic() - began_s < 15, "by looking once a second it were 20 s"


def test_a_node_that_raises(comfyui: ComfyUI) -> None:
    graph = quick_graph()
    graph["3"] = {"class_type": "LabRaise", "inputs": {"message": "it broke", "kind": "ValueError"}}
    graph["2"]["inputs"]["images"] = ["3", 0]
    with pytest.raises(PromptFailed, match=r"it broke \(node 3, LabRaise\)") as failed:
        comfyui.run(graph, timeout_s=20)
    assert failed.value.node_id == "3"
    assert failed.value.prompt_id == comfyui.recent_history()[-1].prompt_id


def test_out_of_memory(comfyui: ComfyUI) -> None:
    graph = quick_graph()
    graph["3"] = {"class_type": "LabOOM", "inputs": {"kind": "torch.OutOfMemoryError"}}
    graph["2"]["inputs"]["images"] = ["3", 0]
    with pytest.raises(PromptFailed, match="Out of memory"):
        comfyui.run(graph, timeout_s=20)


def test_an_interrupt_by_somebody_else(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    sandbox_comfyui.pace.allow(1)
    prompt_id = comfyui.submit(slow_graph(steps=1000)).prompt_id
    until_at_work(sandbox_comfyui)
    sandbox_comfyui.post("/interrupt", {})
    sandbox_comfyui.pace.allow(1000)
    with pytest.raises(PromptInterrupted, match=r"at node 1 \(LabSleep\)"):
        comfyui.wait(prompt_id, timeout_s=20)


def test_one_that_somebody_removed_is_lost_not_done(
    comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI
) -> None:
    sandbox_comfyui.faults(hold=True)
    prompt_id = comfyui.submit(quick_graph()).prompt_id
    sandbox_comfyui.post("/queue", {"delete": [prompt_id]})
    with pytest.raises(PromptLost, match="neither its queue nor its history") as lost:
        comfyui.wait(prompt_id, timeout_s=20)
    assert lost.value.prompt_id == prompt_id


def test_one_that_never_was_is_lost(comfyui: ComfyUI) -> None:
    with pytest.raises(PromptLost):
        comfyui.wait("0b53bd24-0000-4000-8000-000000000000", timeout_s=20)


def test_a_comfyui_that_is_restarted_meanwhile(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    sandbox_comfyui.pace.allow(1)
    prompt_id = comfyui.submit(slow_graph(steps=1000)).prompt_id
    until_at_work(sandbox_comfyui)
    sandbox_comfyui.faults(restart={"down_s": 0.5})
    with pytest.raises(PromptLost):
        comfyui.wait(prompt_id, timeout_s=20)


def test_a_time_limit_is_for_the_wait_not_for_the_prompt(
    comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI
) -> None:
    sandbox_comfyui.pace.allow(1)
    prompt_id = comfyui.submit(slow_graph(steps=2)).prompt_id
    with pytest.raises(TimeoutError, match=r"within 0\.3 s\. It goes on") as late:
        comfyui.wait(prompt_id, timeout_s=0.3)
    assert isinstance(late.value, TimedOut)
    sandbox_comfyui.pace.allow(100)
    assert comfyui.wait(prompt_id, timeout_s=20).outputs


def test_a_time_limit_counts_while_comfyui_is_away(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    sandbox_comfyui.pace.allow(0)
    prompt_id = comfyui.submit(slow_graph(steps=1000)).prompt_id
    sandbox_comfyui.faults(answers=[{"path": "/", "mode": "500", "times": 1000}])
    began_s = time.monotonic()
    with pytest.raises(TimedOut):
        comfyui.wait(prompt_id, timeout_s=1.5)
    assert time.monotonic() - began_s < 20


@pytest.mark.parametrize("fault", [{"deaf_websockets": True}, {"close_websockets": True}])
def test_a_websocket_is_a_hint_only(
    comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI, fault: dict[str, bool]
) -> None:
    sandbox_comfyui.pace.allow(1)
    prompt_id = comfyui.submit(slow_graph(steps=2)).prompt_id
    sandbox_comfyui.faults(**fault)
    sandbox_comfyui.pace.allow(100)
    assert comfyui.wait(prompt_id, timeout_s=20).outputs


def test_a_dead_worker_is_told(
    comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stall_detector, "LOOK_AT_LOG_AFTER_S", 0.5)
    prompt_id = sandbox_comfyui.submit(graph_with_a_link_to_nowhere())
    with pytest.raises(InstanceBroken, match="Restart ComfyUI"):
        comfyui.wait(prompt_id, timeout_s=20)


def test_interrupting_one_leaves_the_other(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    sandbox_comfyui.pace.allow(1)
    running = comfyui.submit(slow_graph(steps=2)).prompt_id
    until_at_work(sandbox_comfyui)
    waiting = comfyui.submit(quick_graph()).prompt_id
    assert comfyui.queue().position(waiting) == 1
    comfyui.interrupt(waiting)
    with pytest.raises(PromptInterrupted, match="before it ran"):
        comfyui.wait(waiting, timeout_s=20)
    sandbox_comfyui.pace.allow(100)
    assert comfyui.wait(running, timeout_s=20).outputs


def test_interrupting_what_runs_whichever_it_is(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    sandbox_comfyui.pace.allow(1)
    running = sandbox_comfyui.submit(slow_graph(steps=1000))
    until_at_work(sandbox_comfyui)
    waiting = comfyui.submit(quick_graph()).prompt_id
    comfyui.interrupt()
    sandbox_comfyui.pace.allow(1000)
    stopped, gone, done = comfyui.wait_all([running, "nobody", waiting], timeout_s=20)
    assert (stopped.index, stopped.prompt_id) == (0, running)
    assert isinstance(stopped.error, PromptInterrupted)
    assert isinstance(gone.error, PromptLost)
    assert done.entry is not None
    assert (done.index, done.entry.outcome) == (2, Outcome.SUCCESS)


def test_cancelling_waits_for_the_end(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    sandbox_comfyui.pace.allow(1)
    running = comfyui.submit(slow_graph(steps=1000)).prompt_id
    until_at_work(sandbox_comfyui)
    waiting = comfyui.submit(quick_graph()).prompt_id
    assert comfyui.cancel(waiting, timeout_s=20) is None
    comfyui.interrupt(running)
    sandbox_comfyui.pace.allow(1000)
    entry = comfyui.cancel(running, timeout_s=20)
    assert entry is not None
    assert entry.outcome is Outcome.INTERRUPTED
    assert comfyui.queue().running == ()
    assert comfyui.cancel(running, timeout_s=20) == entry
