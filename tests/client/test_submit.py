"""A prompt runs once, even if the response to its submission is lost."""

import uuid

import pytest

from comfyui_workflow.client import ComfyUI, ComfyUIUnavailable, InvalidGraph, PromptRefused
from tests.client.late_relay import LateRelay
from tests.sandbox.graphs import graph_with_a_link_to_nowhere, quick_graph
from tests.sandbox.running_comfyui import RunningComfyUI


def started(running: RunningComfyUI) -> list[str]:
    return [entry["prompt_id"] for entry in running.executions() if entry["event"] == "start"]


@pytest.mark.parametrize("mode", ["drop", "half_json", "500", "html", "empty"])
def test_an_answer_that_is_lost(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI, mode: str) -> None:
    sandbox_comfyui.faults(answers=[{"path": "/prompt", "mode": mode, "method": "POST"}])
    submitted = comfyui.submit(quick_graph())
    entry = comfyui.wait(submitted.prompt_id, timeout_s=20)
    assert started(sandbox_comfyui) == [submitted.prompt_id] == [entry.prompt_id]


def test_two_answers_that_are_lost(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    """The first prompt never arrived, and the response to the lookup is lost, too."""
    lost = [("/prompt", "500", "POST"), ("/queue", "drop", "GET"), ("/prompt", "drop", "POST")]
    answers = [{"path": path, "mode": mode, "method": method} for path, mode, method in lost]
    sandbox_comfyui.faults(answers=answers)
    submitted = comfyui.submit(quick_graph())
    comfyui.wait(submitted.prompt_id, timeout_s=20)
    assert started(sandbox_comfyui) == [submitted.prompt_id]


def test_a_comfyui_that_chooses_the_id_itself(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    answers = [{"path": "/prompt", "mode": "drop", "method": "POST"}]
    sandbox_comfyui.faults(version="0.3.41", answers=answers)
    submitted = comfyui.submit(quick_graph())
    assert comfyui.wait(submitted.prompt_id, timeout_s=20).outputs
    assert started(sandbox_comfyui) == [submitted.prompt_id]


def test_a_script_that_comes_again_with_its_own_id(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    prompt_id = str(uuid.uuid4())
    assert comfyui.submit(quick_graph(), prompt_id=prompt_id).prompt_id == prompt_id
    comfyui.wait(prompt_id, timeout_s=20)
    with ComfyUI(comfyui.url) as again:
        assert again.submit(quick_graph(), prompt_id=prompt_id).prompt_id == prompt_id
    assert started(sandbox_comfyui) == [prompt_id]


def test_one_that_arrives_late_is_dropped(sandbox_comfyui: RunningComfyUI) -> None:
    """The first prompt is so late that it is sent again: both arrive."""
    sandbox_comfyui.faults(hold=True)
    with LateRelay(sandbox_comfyui.url("")) as relay, ComfyUI(relay.url) as comfyui:
        prompt_id = comfyui.submit(quick_graph()).prompt_id
        assert (relay.prompts, comfyui.queue().pending) == (2, (prompt_id,))
        sandbox_comfyui.faults(hold=False)
        comfyui.wait(prompt_id, timeout_s=20)
    assert started(sandbox_comfyui) == [prompt_id]


def test_one_that_may_have_arrived_is_told_by_its_id(sandbox_comfyui: RunningComfyUI) -> None:
    away = {"path": "/queue", "mode": "500", "times": 100}
    lost = {"path": "/prompt", "mode": "drop", "method": "POST"}
    sandbox_comfyui.faults(answers=[away, lost])
    with ComfyUI(sandbox_comfyui.url(""), patience_s=1) as comfyui:
        with pytest.raises(ComfyUIUnavailable, match="prompt_id") as unsure:
            comfyui.submit(quick_graph())
        assert unsure.value.prompt_id is not None
        sandbox_comfyui.faults(answers=[])
        known = comfyui.submit(quick_graph(), prompt_id=unsure.value.prompt_id)
        comfyui.wait(known.prompt_id, timeout_s=20)
    assert started(sandbox_comfyui) == [unsure.value.prompt_id]


def test_nobody_there(sandbox_comfyui: RunningComfyUI) -> None:
    sandbox_comfyui.faults(restart={"down_s": 5})
    with (
        ComfyUI(sandbox_comfyui.url(""), patience_s=0) as comfyui,
        pytest.raises(ComfyUIUnavailable, match="No ComfyUI answers at http://127") as away,
    ):
        comfyui.submit(quick_graph())
    assert away.value.prompt_id is None


def test_a_comfyui_that_is_back_soon(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    sandbox_comfyui.faults(restart={"down_s": 0.7})
    assert comfyui.run(quick_graph(), timeout_s=20).outputs


def test_a_refusal_says_what_is_allowed(comfyui: ComfyUI) -> None:
    graph = quick_graph()
    graph["1"]["inputs"]["width"] = -1
    with pytest.raises(PromptRefused, match=r'node 1 \(EmptyImage\): input "width"'):
        comfyui.submit(graph)


def test_what_would_kill_its_worker_is_never_sent(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    with pytest.raises(InvalidGraph, match="99"):
        comfyui.submit(graph_with_a_link_to_nowhere())
    assert comfyui.queue().pending == comfyui.queue().running == ()
    assert started(sandbox_comfyui) == []


def test_the_editors_file_is_refused_with_advice(comfyui: ComfyUI) -> None:
    with pytest.raises(InvalidGraph, match="API format"):
        comfyui.submit({"nodes": [], "links": [], "version": 0.4})


def test_the_editors_file_goes_along(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    submitted = comfyui.submit(quick_graph(), editor_file={"nodes": []}, extra_data={"job": 7})
    comfyui.wait(submitted.prompt_id, timeout_s=20)
    extra = sandbox_comfyui.wait_for(submitted.prompt_id)["prompt"][3]
    assert (extra["job"], extra["extra_pnginfo"]) == (7, {"workflow": {"nodes": []}})
