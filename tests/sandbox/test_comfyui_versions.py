"""What the imitated versions of ComfyUI have, and the nodes that imitate a partner node and a broken pack."""

import re

import pytest

from tests.sandbox.graphs import Graph, quick_graph, slow_graph
from tests.sandbox.running_comfyui import Listener, RunningComfyUI

UNKNOWN = "00000000-0000-4000-8000-00000000000c"
WITH_HOOK = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 1}},
    "2": {
        "class_type": "SandboxBrokenPack",
        "inputs": {"image": ["1", 0], "message": "no such table: packs"},
    },
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
}


@pytest.mark.parametrize(
    ("version", "statuses"),
    [
        ("0.33.0", [200, 200, 200, 200]),
        ("0.8.0", [200, 200, 404, 405]),
        ("0.3.64", [200, 404, 404, 405]),
        ("0.3.41", [404, 404, 404, 405]),
    ],
)
def test_each_version_has_its_own_routes(comfyui: RunningComfyUI, version: str, statuses: list[int]) -> None:
    comfyui.faults(version=version)
    assert comfyui.get("/system_stats").json()["system"]["comfyui_version"] == version
    answers = [comfyui.get(path) for path in ("/features", "/api/jobs", "/node_replacements")]
    answers.append(comfyui.post(f"/api/jobs/{UNKNOWN}/cancel"))
    assert [answer.status_code for answer in answers] == statuses
    assert comfyui.post("/api/jobs/cancel", {"job_ids": []}).status_code == statuses[-1]


@pytest.mark.parametrize("version", ["new", "0.34.0", "", None])
def test_other_versions_are_refused(comfyui: RunningComfyUI, version: object) -> None:
    assert comfyui.post("/sandbox/faults", {"version": version}).status_code == 400


def test_an_older_version_does_not_have_the_newer_classes(comfyui: RunningComfyUI) -> None:
    graph: Graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 1}},
        "2": {"class_type": "BatchImagesNode", "inputs": {"images.image0": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    }
    assert comfyui.post("/prompt", {"prompt": graph}).status_code == 200
    comfyui.faults(version="0.3.64")
    assert "BatchImagesNode" not in comfyui.get("/object_info").json()
    assert comfyui.post("/prompt", {"prompt": graph}).json()["error"]["type"] == "invalid_prompt"


@pytest.mark.parametrize(
    ("version", "prefix"), [("0.33.0", r"\x1b\[1m\x1b\[31m\[ERROR\]\x1b\[0m "), ("0.3.64", "")]
)
def test_a_broken_pack_is_a_server_error_with_its_reason_in_the_log(
    comfyui: RunningComfyUI, version: str, prefix: str
) -> None:
    comfyui.faults(version=version)
    response = comfyui.post("/prompt", {"prompt": WITH_HOOK})
    assert (response.status_code, response.headers["Content-Type"]) == (500, "text/plain; charset=utf-8")
    last = comfyui.get("/internal/logs/raw").json()["entries"][-1]["m"]
    begins = prefix + r"Error handling request from 127\.0\.0\.1\nTraceback \(most recent call last\):\n"
    assert re.match(begins, last)
    assert last.endswith("RuntimeError: no such table: packs\n")
    assert comfyui.get("/queue").json() == {"queue_running": [], "queue_pending": []}
    assert comfyui.post("/prompt", {"prompt": quick_graph()}).status_code == 200


def test_a_replaced_class_without_a_title_is_a_server_error(comfyui: RunningComfyUI) -> None:
    node = {"class_type": "ResizeImagesByLongerEdge", "inputs": {"images": ["1", 0], "longer_edge": 8}}
    graph = {
        **quick_graph(),
        "2": node,
        "3": {**WITH_HOOK["3"], "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    }
    assert comfyui.post("/prompt", {"prompt": graph}).status_code == 500
    assert comfyui.get("/internal/logs/raw").json()["entries"][-1]["m"].endswith("KeyError: '_meta'\n")
    graph["2"] = {**node, "_meta": {"title": "Resize"}}
    entry = comfyui.wait_for(comfyui.submit(graph))
    assert entry["prompt"][2]["2"]["class_type"] == "ImageScaleToMaxDimension"
    assert entry["status"]["completed"]


def test_a_partner_node_costs_nothing_here(comfyui: RunningComfyUI) -> None:
    graph: Graph = {
        "1": {"class_type": "SandboxPartner", "inputs": {"prompt": "a cat", "seed": 1}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    assert comfyui.get("/object_info/SandboxPartner").json()["SandboxPartner"]["api_node"] is True
    assert comfyui.wait_for(comfyui.submit(graph))["status"]["completed"]


def test_a_job_is_cancelled_wherever_it_is(comfyui: RunningComfyUI) -> None:
    comfyui.faults(step_delay_s=0.02)
    listener = Listener(comfyui, "?clientId=me")
    running = comfyui.submit(slow_graph(steps=1000), client_id="me")
    pending = comfyui.submit(quick_graph(), client_id="me")
    listener.wait_for_type("progress")
    assert comfyui.get(f"/api/jobs/{running}").json()["status"] == "in_progress"
    for job_id in (pending, running):
        assert comfyui.post(f"/api/jobs/{job_id}/cancel").json() == {"cancelled": True}
    comfyui.wait_for(running)
    assert comfyui.get(f"/api/jobs/{running}").json()["status"] == "cancelled"
    assert comfyui.get(f"/api/jobs/{pending}").status_code == 404
    assert comfyui.post(f"/api/jobs/{running}/cancel").json() == {"cancelled": False}
