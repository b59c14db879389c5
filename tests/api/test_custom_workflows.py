"""Custom workflows over HTTP: the list, the forms of requests, the run, and the OpenAPI document."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.api.conftest import Api
from tests.api.test_workflow import SSH
from tests.services.custom_files import GRAPH, PARAMETERS, PYTHON, write


@pytest.fixture
def custom_api(make_api: Callable[..., Api], tmp_path: Path) -> Api:
    directory = tmp_path / "workflows"
    photo = {**PARAMETERS, "photo": {"input": "6.text", "type": "file"}}
    write(
        directory,
        "cats/cat.json",
        json.dumps({"workflow": GRAPH, "parameters": PARAMETERS, "summary": "Cats"}),
    )
    write(directory, "photo.json", json.dumps({"workflow": GRAPH, "parameters": photo}))
    write(directory, "square.py", PYTHON)
    write(directory, "broken.json", "{")
    return make_api(workflow_dir=directory)


def run(api: Api, name: str, **body: Any) -> Any:
    return api.client.post(f"/workflow/{name}", json={"ssh_connection": SSH, **body})


def test_they_are_listed_with_their_parameters(custom_api: Api) -> None:
    listed = custom_api.client.get("/workflow").json["workflows"]
    assert [each["name"] for each in listed] == ["broken", "cats/cat", "photo", "square"]
    assert listed[0]["input_schema"] is None
    assert listed[0]["trouble"].startswith("broken.json is not valid JSON")
    shown = custom_api.client.get("/workflow/cats/cat").json["workflow"]
    assert shown == listed[1]
    assert shown["input_schema"]["properties"]["steps"]["maximum"] == 50


def test_one_is_run_as_execute_does(custom_api: Api) -> None:
    answer = run(custom_api, "cats/cat", input={"prompt": "a lake"}, priority=3, webhook="https://8.8.8.8/")
    assert answer.status_code == 200, answer.text
    run_id = answer.json["workflow_id"]
    assert answer.json == {"success": True, "workflow_id": run_id, "message": "Workflow execution started"}
    request = custom_api.journal.get(run_id).request
    assert (request.workflow_name, request.priority) == ("cats/cat", 3)
    assert (request.workflow.graph, request.webhook is None) == (GRAPH, False)
    assert request.inputs == {"Prompt.text": "a lake", "3.steps": 25}


def test_it_takes_the_fields_of_execute(custom_api: Api) -> None:
    body = {
        "upload": "https://8.8.8.8/renders",
        "credentials": [{"url_pattern": "https://8.8.8.8/**", "auth": {"type": "bearer", "token": "t"}}],
        "convert": {"format": "webp", "options": {"quality": 90}},
        "provision": True,
        "seed_mode": "randomize",
    }
    answer = run(custom_api, "cats/cat", input={"prompt": "a lake"}, **body)
    assert answer.status_code == 200, answer.text
    request = custom_api.journal.get(answer.json["workflow_id"]).request
    assert (request.upload is None, request.provision, request.seed_mode) == (False, True, "randomize")
    assert request.convert is not None
    assert request.convert.document() == body["convert"]


def test_a_file_of_a_request_may_be_a_url(custom_api: Api) -> None:
    url = "https://8.8.8.8/in/cat.png?sig=secret"
    answer = run(custom_api, "photo", input={"prompt": "x", "photo": url})
    assert answer.status_code == 200, answer.text
    request = custom_api.journal.get(answer.json["workflow_id"]).request
    (download,) = request.downloads
    assert request.inputs["6.text"] == download.path
    assert "secret" not in download.url


def test_a_python_file_is_run(custom_api: Api) -> None:
    run_id = run(custom_api, "square", input={"text": "x", "size": 32}).json["workflow_id"]
    assert custom_api.journal.get(run_id).request.workflow.graph["1"]["inputs"]["width"] == 32


def test_a_file_of_a_request_is_an_input_file(custom_api: Api, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "cat.png")
    values = {"prompt": "x", "photo": str(tmp_path / "cat.png")}
    run_id = run(custom_api, "photo", input=values).json["workflow_id"]
    assert custom_api.journal.get(run_id).request.input_images == (str(tmp_path / "cat.png"),)
    answer = run(custom_api, "photo", input={**values, "photo": "/etc/passwd"})
    assert (answer.status_code, answer.json["code"]) == (400, "file_refused")


def test_a_repeated_request_starts_one_run(custom_api: Api) -> None:
    sent = {"json": {"ssh_connection": SSH, "input": {"prompt": "x"}}, "headers": {"Idempotency-Key": "k"}}
    first, second = (custom_api.client.post("/workflow/cats/cat", **sent).json for _ in range(2))
    assert first == second
    other = custom_api.client.post("/workflow/photo", **sent).json
    assert other["workflow_id"] != first["workflow_id"]


def test_any_instance_is_the_default(custom_api: Api) -> None:
    answer = custom_api.client.post("/workflow/cats/cat", json={"input": {"prompt": "x"}})
    assert (answer.status_code, "There are no instances" in answer.json["message"]) == (400, True)


UNKNOWN, BROKEN, INVALID = "custom_workflow_not_found", "custom_workflow_broken", "invalid_request"
CAT = {"prompt": "x"}


@pytest.mark.parametrize(
    ("name", "body", "code", "said"),
    [
        ("nothing", {}, UNKNOWN, "There is no custom workflow 'nothing'; there are:"),
        ("cats", {}, UNKNOWN, "There is no custom workflow"),
        ("broken", {"input": {}}, BROKEN, "broken.json is not valid JSON"),
        ("cats/cat", {"input": 3}, INVALID, "input must be an object"),
        ("cats/cat", {"input": {}}, INVALID, "input.prompt is required"),
        ("cats/cat", {}, INVALID, "input.prompt is required"),
        ("cats/cat", {"input": CAT, "inputs": {}}, INVALID, "inputs is not a field"),
        ("cats/cat", {"input": CAT, "workflow": GRAPH}, INVALID, "workflow is not"),
        ("cats/cat", {"input": CAT, "convert": "gif"}, INVALID, "convert must"),
        ("cats/cat", {"input": CAT, "upload": 3}, INVALID, "upload must"),
        ("cats/cat", {"input": CAT, "upload": "s3://"}, INVALID, "upload"),
        ("cats/cat", {"input": CAT, "credentials": {}}, INVALID, "credentials must"),
        ("cats/cat", {"input": CAT, "input_images": 3}, INVALID, "input_images must"),
        ("square", {"input": {"text": "boom"}}, INVALID, "the workflow cannot be made: no paint"),
    ],
)
def test_a_request_that_is_refused(
    custom_api: Api, name: str, body: dict[str, Any], code: str, said: str
) -> None:
    answer = run(custom_api, name, **body)
    assert answer.status_code == {UNKNOWN: 404, BROKEN: 500, INVALID: 400}[code], answer.text
    assert answer.json["code"] == code
    assert answer.json["message"].startswith(said)
    assert custom_api.service.unfinished_count() == 0


def test_they_are_in_the_openapi_document(custom_api: Api) -> None:
    paths = custom_api.client.get("/docs/json").json["paths"]
    operation = paths["/workflow/cats/cat"]["post"]
    (_, own) = operation["requestBody"]["content"]["application/json"]["schema"]["allOf"]
    assert (operation["summary"], own["properties"]["input"]["required"]) == ("Cats", ["prompt"])
    assert "/workflow/broken" not in paths


def test_the_token_is_needed(make_api: Callable[..., Api], tmp_path: Path) -> None:
    api = make_api(api_token="secret", workflow_dir=tmp_path)
    assert api.client.get("/workflow").status_code == 401
    assert api.client.post("/workflow/a", json={}).status_code == 401
