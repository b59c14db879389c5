"""Causes that end ComfyUI's worker thread, the state of a server without a worker, and a cycle at run
time."""

import pytest

from tests.sandbox.graphs import graph_with_a_link_to_nowhere, quick_graph
from tests.sandbox.running_comfyui import Listener, RunningComfyUI, wait_until


def test_a_link_to_nowhere_kills_the_worker(comfyui: RunningComfyUI) -> None:
    listener = Listener(comfyui, "?clientId=me")
    dead = comfyui.submit(graph_with_a_link_to_nowhere(), client_id="me")
    wait_until(lambda: "NodeNotFound" in comfyui.get("/internal/logs/raw").text)
    comfyui.post("/interrupt", {"prompt_id": dead})
    waiting = comfyui.submit(quick_graph(), client_id="me")
    wait_until(lambda: len(listener.of_type("status")) == 4)
    queue = comfyui.get("/queue").json()
    assert [item[1] for item in queue["queue_running"]] == [dead]
    assert [item[1] for item in queue["queue_pending"]] == [waiting]
    assert comfyui.get("/history").json() == {}
    events = [frame["type"] for frame in listener.frames if isinstance(frame, dict)]
    assert [event for event in events if event != "status"] == ["execution_start", "execution_cached"]
    assert "(prompt_worker)" in comfyui.get("/internal/logs/raw").text


@pytest.mark.parametrize("kind", ["SystemExit"])
def test_a_node_that_exits_kills_the_worker_without_a_word(comfyui: RunningComfyUI, kind: str) -> None:
    graph = quick_graph()
    graph["1"] = {"class_type": "LabRaise", "inputs": {"message": "", "kind": kind}}
    dead = comfyui.submit(graph)
    wait_until(lambda: [line["event"] for line in comfyui.executions()] == ["start"])
    comfyui.submit(quick_graph())
    assert [item[1] for item in comfyui.get("/queue").json()["queue_running"]] == [dead]
    assert "Traceback" not in comfyui.get("/internal/logs/raw").text


def test_a_reset_brings_the_worker_back(comfyui: RunningComfyUI) -> None:
    comfyui.submit(graph_with_a_link_to_nowhere())
    comfyui.post("/sandbox/reset")
    assert comfyui.wait_for(comfyui.submit(quick_graph()))["status"]["completed"]


def test_a_cycle_through_an_unknown_input_is_an_error_that_counts_as_success(
    comfyui: RunningComfyUI,
) -> None:
    graph = quick_graph()
    graph["1"]["inputs"]["bogus"] = ["2", 0]
    entry = comfyui.wait_for(comfyui.submit(graph))
    assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("success", True)
    kind, error = entry["status"]["messages"][-1]
    del error["timestamp"], error["prompt_id"]
    assert kind == "execution_error"
    assert error == {
        "node_id": "2",
        "node_type": "SaveImage",
        "executed": [],
        "exception_message": "Dependency cycle detected",
        "exception_type": "graph.DependencyCycleError",
        "traceback": [],
        "current_inputs": [],
        "current_outputs": ["1", "2"],
    }
