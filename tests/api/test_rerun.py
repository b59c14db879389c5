"""The body that requests an earlier run again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfyui_workflow.runs import events
from tests.api.conftest import Api
from tests.api.test_workflow import EDITOR_FILE, GRAPH, SSH
from tests.workflows.pictures import png, text

BASE = "/comfyui/workflow"


def submitted(api: Api, **body: Any) -> str:
    answer = api.client.post(f"{BASE}/execute", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json["workflow_id"])


def told(api: Api, run_id: str) -> tuple[dict[str, Any], Any]:
    answer = api.client.get(f"{BASE}/{run_id}/request").json
    assert answer["success"]
    return answer["request"], answer["graph"]


def everything(tmp_path: Path) -> dict[str, Any]:
    picture = tmp_path / "a.png"
    Image.new("RGB", (2, 2)).save(picture)
    return {
        "ssh_connection": f"{SSH} -L 1:localhost:2",
        "workflow": GRAPH,
        "inputs": {"Photo.image": "a.png"},
        "seed_mode": "randomize",
        "workflow_name": "mine",
        "input_images": [str(picture)],
        "output_dir": str(tmp_path / "out"),
        "comfyui_port": 3,
        "comfyui_input_dir": "/in",
        "comfyui_output_dir": "/out",
        "include_previews": True,
        "priority": 7,
    }


def test_all_that_was_asked_is_asked_again(api: Api, tmp_path: Path) -> None:
    body = everything(tmp_path)
    first = submitted(api, **body)
    assert told(api, first)[0] == body
    second = submitted(api, **told(api, first)[0])
    assert api.journal.get(second).request == api.journal.get(first).request


@pytest.mark.parametrize("given", [{"workflow": GRAPH}, {"workflow": EDITOR_FILE}])
@pytest.mark.parametrize("connection", [SSH, f"{SSH} -L 1:localhost:2", "any", "any:big", "Primary"])
def test_what_was_left_to_its_default_is_left_out(api: Api, connection: str, given: Any) -> None:
    api.instances.directory.add({"name": "Primary", "ssh_connection": SSH, "tags": ["big"]})
    first = submitted(api, ssh_connection=connection, **given)
    body, _ = told(api, first)
    assert set(body) == {"ssh_connection", "workflow", "workflow_name", "output_dir"}
    second = submitted(api, **body)
    assert api.journal.get(second).request == api.journal.get(first).request


def test_an_instance_that_was_renamed_is_still_meant(api: Api) -> None:
    api.instances.directory.add({"name": "Big one", "ssh_connection": SSH})
    first = submitted(api, ssh_connection="Big one", workflow=GRAPH)
    api.instances.directory.change("big-one", {"name": "Second"})
    assert told(api, first)[0]["ssh_connection"] == "big-one"
    api.instances.directory.remove("big-one")
    assert told(api, first)[0]["ssh_connection"] == "Big one"


def test_of_a_picture_it_is_what_was_run(api: Api, tmp_path: Path) -> None:
    path = tmp_path / "made.png"
    path.write_bytes(png(text("prompt", json.dumps(GRAPH)), text("workflow", json.dumps(EDITOR_FILE))))
    by_mode = {
        mode: told(api, submitted(api, ssh_connection=SSH, workflow_file=str(path), seed_mode=mode))[0]
        for mode in ("saved", "control")
    }
    assert by_mode["saved"]["workflow"] == GRAPH
    assert by_mode["control"]["workflow"] == EDITOR_FILE
    assert by_mode["saved"]["workflow_name"] == "made.png"


def test_the_graph_is_told_as_soon_as_it_is_known(api: Api) -> None:
    assert told(api, submitted(api, ssh_connection=SSH, workflow=GRAPH))[1] == GRAPH
    for asked in ({"workflow": EDITOR_FILE}, {"workflow": GRAPH, "seed_mode": "randomize"},
                  {"workflow": GRAPH, "inputs": {"1.image": "b.png"}}):  # fmt: skip
        run_id = submitted(api, ssh_connection=SSH, **asked)
        assert told(api, run_id)[1] is None
        prepared = {"1": {"class_type": "A", "inputs": {}}}
        api.journal.record(run_id, events.GraphPrepared(graph=prepared))
        assert told(api, run_id)[1] == prepared


def test_of_no_run_nothing_is_told(api: Api) -> None:
    assert api.client.get(f"{BASE}/nobody/request").status_code == 404


def test_again_with_changes(api: Api, tmp_path: Path) -> None:
    seed = 2**64 - 1
    graph = {**GRAPH, "3": {"class_type": "KSampler", "inputs": {"seed": seed}}}
    first = submitted(api, **{**everything(tmp_path), "workflow": graph})
    second = submitted(api, again=first, inputs={"2.filename_prefix": "again"}, priority=3)
    before, after = (api.journal.get(each).request for each in (first, second))
    assert after.inputs == {"Photo.image": "a.png", "2.filename_prefix": "again"}
    assert after.priority == 3
    assert after.workflow.graph["3"]["inputs"]["seed"] == seed
    assert replace(after, inputs=before.inputs, priority=before.priority) == before


def test_again_with_another_workflow(api: Api) -> None:
    first = submitted(api, ssh_connection=SSH, workflow=GRAPH, workflow_name="mine")
    other = {**GRAPH, "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    request = api.journal.get(submitted(api, again=first, workflow=other)).request
    assert (request.workflow.graph, request.ssh_connection, request.workflow_name) == (other, SSH, "mine")


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"again": "nobody"}, 404, "nobody"),
        ({"again": 7}, 400, "again"),
        ({"again": "FIRST", "inputs": ["x"]}, 400, "inputs"),
        ({"again": "FIRST", "inputs": {"99.x": 1}}, 400, "99"),
        ({"again": "FIRST", "workflow": GRAPH, "workflow_file": "/x"}, 400, "workflow"),
    ],
)
def test_again_says_what_is_wrong(api: Api, body: dict[str, Any], status: int, word: str) -> None:
    first = submitted(api, ssh_connection=SSH, workflow=GRAPH)
    again = first if body["again"] == "FIRST" else body["again"]
    answer = api.client.post(f"{BASE}/execute", json={**body, "again": again})
    assert answer.status_code == status
    assert word in answer.json["message"]


def test_the_workflow_of_a_run_is_inspected_with_its_inputs(api: Api) -> None:
    first = submitted(api, ssh_connection=SSH, workflow=GRAPH, inputs={"Photo.image": "b.png"})
    answer = api.client.post(f"{BASE}/inspect", json={"again": first}).json
    assert [each["value"] for each in answer["key_inputs"] if each["name"] == "1.image"] == ["b.png"]
    assert answer["nodes"] == api.client.post(f"{BASE}/inspect", json={"workflow": GRAPH}).json["nodes"]
    api.journal.record(
        first, events.GraphPrepared(graph={**GRAPH, "1": {**GRAPH["1"], "inputs": {"image": "c.png"}}})
    )
    answer = api.client.post(f"{BASE}/inspect", json={"again": first}).json
    assert [each["value"] for each in answer["key_inputs"] if each["name"] == "1.image"] == ["c.png"]
    assert api.client.post(f"{BASE}/inspect", json={"again": "nobody"}).status_code == 404
