"""The fields `spread`, `spread_over` and `partial`: what is accepted and refused, also of a repeated run."""

from typing import Any

import pytest

from comfyui_workflow.runs.parts import Partial
from tests.api.conftest import Api
from tests.api.test_workflow import GRAPH, SSH


def named(api: Api, *names: str) -> None:
    for name in names:
        fields = {"name": name, "ssh_connection": f"ssh root@{name}.example"}
        assert api.client.post("/comfyui/instances", json=fields).status_code == 201


def execute(api: Api, **body: Any) -> Any:
    return api.client.post("/comfyui/workflow/execute", json={"workflow": GRAPH, **body})


def test_a_run_is_divided_and_repeated_as_it_was_ordered(api: Api) -> None:
    named(api, "left", "right")
    order = {"ssh_connection": "any", "spread": 3, "spread_over": ["right", "left"], "partial": "keep"}
    run_id = execute(api, **order).json["workflow_id"]
    parts = api.journal.get(run_id).request.parts
    assert parts is not None
    assert (parts.count, parts.partial, len(parts.among)) == (3, Partial.KEEP, 2)
    assert len(api.executor.started) == 3
    progress = api.client.get(f"/comfyui/workflow/{run_id}/progress").json["progress"]
    assert [part["part"] for part in progress["children"]] == [1, 2, 3]
    assert (progress["parts"], progress["message"]) == (3, "0 of 3 parts have ended")
    part = api.client.get(f"/comfyui/workflow/{progress['children'][0]['workflow_id']}/progress")
    assert part.json["progress"]["parent_id"] == run_id
    body = api.client.get(f"/comfyui/workflow/{run_id}/request").json["request"]
    assert {name: body[name] for name in order} == order
    again = execute(api, again=run_id, spread=2).json["workflow_id"]
    again_parts = api.journal.get(again).request.parts
    assert again_parts is not None
    assert again_parts.count == 2


def test_one_part_is_a_run_as_any_other(api: Api) -> None:
    run_id = execute(api, ssh_connection=SSH, spread=1).json["workflow_id"]
    assert api.journal.get(run_id).request.parts is None
    assert api.executor.started == [run_id]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"spread": 0}, "spread must be a whole number from 1 to 64"),
        ({"spread": 65}, "spread must be a whole number from 1 to 64"),
        ({"spread": "two"}, "spread must be a whole number from 1 to 64"),
        ({"spread": 2, "partial": "maybe"}, "partial must be one of move, keep, fail"),
        ({"spread": 2, "spread_over": "left"}, "spread_over must be a list of names of instances"),
        ({"spread": 2, "spread_over": ["up"]}, 'spread_over: no instance is called "up"'),
        ({"partial": "keep"}, "partial needs spread: the number of parts, at least 2"),
        ({"spread_over": ["left"]}, "spread_over needs spread: the number of parts, at least 2"),
        (
            {"spread": 2, "spread_over": ["left"], "ssh_connection": "left"},
            "spread_over needs a run for any: ssh_connection names one machine already",
        ),
    ],
)
def test_a_wrong_field_is_named(api: Api, body: dict[str, Any], message: str) -> None:
    named(api, "left")
    answer = execute(api, **{"ssh_connection": "any", **body})
    assert answer.status_code == 400
    assert answer.json["message"].startswith(message)
    assert api.executor.started == []


def test_parts_count_in_the_size_of_a_batch(api: Api) -> None:
    named(api, "left")
    body = {"ssh_connection": "any", "workflow": GRAPH, "rows": [{}] * 200, "spread": 64}
    answer = api.client.post("/comfyui/workflow/batch", json=body)
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")
    assert "has 12800" in answer.json["message"]
