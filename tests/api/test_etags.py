"""Conditional GET: a response that the client already has is not sent again."""

import json
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from comfyui_workflow.runs.events import PhaseEntered
from comfyui_workflow.runs.model import Phase
from tests.api.conftest import Api
from tests.api.test_workflow import GRAPH, SSH, run_with_output

WORKFLOW = "/comfyui/workflow"


@pytest.fixture
def run(api: Api) -> str:
    body = {"ssh_connection": SSH, "workflow": GRAPH}
    found: str = api.client.post(f"{WORKFLOW}/execute", json=body).json["workflow_id"]
    return found


def ask(api: Api, path: str, etag: str, method: str = "GET") -> TestResponse:
    return api.client.open(path, method=method, headers={"If-None-Match": etag})


@pytest.mark.parametrize(
    "path",
    [
        WORKFLOW,
        f"{WORKFLOW}?grouped=true&limit=30",
        f"{WORKFLOW}/state",
        f"{WORKFLOW}/RUN/progress",
        f"{WORKFLOW}/RUN/outputs",
        f"{WORKFLOW}/RUN/active",
        f"{WORKFLOW}/batch",
        "/comfyui/instances",
        "/comfyui/instances/costs",
    ],
)
def test_an_answer_that_is_still_true_is_not_sent_again(api: Api, run: str, path: str) -> None:
    path = path.replace("RUN", run)
    first = api.client.get(path)
    assert first.headers["Cache-Control"] == "private, no-cache"
    etag = first.headers["ETag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = ask(api, path, known)
        assert (again.status_code, again.data) == (304, b"")
        assert again.headers["ETag"] == etag
        assert again.headers["Cache-Control"] == "private, no-cache"
        assert "Content-Type" not in again.headers
    assert ask(api, path, '"other"').data == first.data
    assert ask(api, path, etag, "HEAD").status_code == 304


def test_a_change_is_seen_by_the_next_who_asks(api: Api, run: str) -> None:
    for path in (f"{WORKFLOW}/state", f"{WORKFLOW}/{run}/progress"):
        for phase in (Phase.UPLOADING, Phase.WAITING):
            etag = api.client.get(path).headers["ETag"]
            api.journal.record(run, PhaseEntered(phase=phase))
            assert ask(api, path, etag).status_code == 200


def test_an_instance_that_was_added_is_seen(api: Api) -> None:
    etag = api.client.get("/comfyui/instances").headers["ETag"]
    body = {"name": "gpu", "ssh_connection": SSH}
    assert api.client.post("/comfyui/instances", json=body).status_code == 201
    assert len(ask(api, "/comfyui/instances", etag).json["instances"]) == 1


def test_errors_and_what_changes_something_have_none(api: Api, run: str) -> None:
    for answer in (
        api.client.get(f"{WORKFLOW}/unknown/progress"),
        api.client.get(f"{WORKFLOW}?limit=0"),
        api.client.get("/comfyui/nowhere"),
        api.client.post(f"{WORKFLOW}/{run}/priority", json={"priority": 5}),
        api.client.options(WORKFLOW),
    ):
        assert "ETag" not in answer.headers
        assert "Cache-Control" not in answer.headers
    assert ask(api, f"{WORKFLOW}/unknown/progress", "*").status_code == 404


def test_a_json_file_keeps_what_files_have(api: Api, tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    path.write_text(json.dumps({"a": 1}))
    answer = api.client.get(f"{WORKFLOW}/{run_with_output(api, path)}/outputs/0")
    assert answer.headers["Cache-Control"] == "private, max-age=0, must-revalidate"
    assert answer.json == {"a": 1}


def test_a_page_of_an_allowed_host_may_read_a_304(api: Api) -> None:
    origin = "http://10.0.78.66"
    etag = api.client.get(WORKFLOW).headers["ETag"]
    answer = api.client.get(WORKFLOW, headers={"Origin": origin, "If-None-Match": etag})
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (304, origin)
