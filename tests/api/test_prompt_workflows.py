"""Custom workflows in the API of comfyui-api: answers, errors, and the OpenAPI documents."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Api
from tests.services.custom_files import GRAPH, PARAMETERS, PYTHON, write

HOOK = "https://client.example/hook"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
EDITOR: dict[str, Any] = {
    "nodes": [
        {
            "id": 1,
            "type": "LoadImage",
            "title": "Photo",
            "inputs": [],
            "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
            "widgets_values": ["a.png", "image"],
        },
        {
            "id": 2,
            "type": "SaveImage",
            "inputs": [{"name": "images", "type": "IMAGE", "link": 1}],
            "widgets_values": ["saved"],
        },
    ],
    "links": [[1, 1, 0, 2, 0, "IMAGE"]],
    "version": 0.4,
}


@pytest.fixture
def custom_api(make_api: Callable[..., Api], tmp_path: Path) -> Api:
    directory = tmp_path / "workflows"
    saved = {**GRAPH, "s": {"class_type": "SaveImage", "inputs": {"filename_prefix": "cat"}}}
    write(
        directory,
        "cats/cat.json",
        json.dumps({"workflow": saved, "parameters": PARAMETERS, "summary": "Cats"}),
    )
    write(directory, "photo.json", json.dumps({"workflow": EDITOR, "parameters": photo()}))
    write(directory, "square.py", PYTHON)
    write(directory, "broken.json", "{")
    return make_api(workflow_dir=directory, comfyui_api_port=3000)


def photo() -> dict[str, Any]:
    return {"photo": {"input": "Photo.image", "type": "file", "required": True}}


def run(api: Api, name: str, **body: Any) -> Any:
    return api.client.post(f"/comfyui-api/workflow/{name}", json={"webhook": HOOK, **body})


def test_one_is_a_prompt_with_its_values_and_its_answer_repeats_them(custom_api: Api) -> None:
    answer = run(
        custom_api,
        "cats/cat",
        id="x",
        input={"prompt": "a cat", "steps": 9},
        convert_output={"format": "jpeg"},
        other=1,
    )
    assert answer.status_code == 202, answer.text
    assert answer.json.keys() == {"id", "prompt", "webhook", "convert_output", "status", "input"}
    assert answer.json["input"] == {"prompt": "a cat", "steps": 9}
    assert answer.json["prompt"]["6"]["inputs"]["text"] == "a cat"
    assert answer.json["prompt"]["3"]["inputs"]["steps"] == 9
    assert answer.json["prompt"]["s"]["inputs"]["filename_prefix"] == "x_cat"
    state = custom_api.client.get("/comfyui-api/prompt/x").json
    assert custom_api.service.get(state["workflow_id"]).request.workflow_name == "cats/cat"


def test_a_repeated_request_is_one_prompt(custom_api: Api) -> None:
    body = {"webhook": HOOK, "input": {"prompt": "https://u:hid@x.example/"}}
    sent = [
        custom_api.client.post(
            "/comfyui-api/workflow/cats/cat", json=body, headers={"Idempotency-Key": "once"}
        ).json
        for _ in range(2)
    ]
    assert sent[0]["id"] == sent[1]["id"]
    assert sent[0]["input"]["prompt"] == sent[1]["input"]["prompt"] == "https://x.example/"
    assert len(custom_api.executor.started) == 1


def test_a_file_of_the_editor_takes_base64_and_urls_as_its_files(custom_api: Api) -> None:
    answer = run(custom_api, "photo", id="y", input={"photo": PIXEL})
    assert answer.status_code == 202, answer.text
    run_id = custom_api.client.get("/comfyui-api/prompt/y").json["workflow_id"]
    request = custom_api.service.get(run_id).request
    (path,) = request.input_images
    assert request.inputs == {"Photo.image": Path(path).name}
    refused = run(custom_api, "photo", input={"photo": "/etc/passwd.png"})
    assert (refused.status_code, refused.json["location"]) == (400, "input")
    assert refused.json["error"].startswith("Failed to download input file: a path of this machine")


INVALID = {"statusCode": 400, "code": "FST_ERR_VALIDATION", "error": "Bad Request"}


@pytest.mark.parametrize(
    ("name", "body", "status", "expected"),
    [
        ("cats/cat", {}, 400, {**INVALID, "message": "body/input Required"}),
        ("cats/cat", {"input": 3}, 400, {**INVALID, "message": "body/input Expected object"}),
        ("cats/cat", {"input": {}}, 400, {**INVALID, "message": "body/input/prompt is required"}),
        (
            "cats/cat",
            {"input": {"prompt": "a", "steps": "b"}},
            400,
            {**INVALID, "message": "body/input/steps must be a whole number"},
        ),
        (
            "cats/cat",
            {"input": {"prompt": "a"}, "webhook": 3},
            400,
            {**INVALID, "message": "body id, webhook and webhook_v2 must be texts"},
        ),
        (
            "square",
            {"input": {"text": "boom"}},
            400,
            {"error": "Failed to generate workflow prompt: no paint left", "location": "input"},
        ),
        (
            "none",
            {"input": {}},
            404,
            {
                "statusCode": 404,
                "error": "Not Found",
                "message": "Route POST:/comfyui-api/workflow/none not found",
            },
        ),
    ],
)
def test_a_bad_request_has_the_words_of_comfyui_api(
    custom_api: Api, name: str, body: dict[str, Any], status: int, expected: dict[str, Any]
) -> None:
    answer = run(custom_api, name, **body)
    assert (answer.status_code, answer.json) == (status, expected)
    assert custom_api.service.unfinished_count() == 0


def test_a_file_that_cannot_be_used_says_why(custom_api: Api) -> None:
    answer = run(custom_api, "broken", input={})
    assert (answer.status_code, answer.json["error"]) == (500, "Internal Server Error")
    assert answer.json["message"].startswith("broken.json is not valid JSON")


@pytest.mark.parametrize("content", ["null", "[]", '"a"', "{", '{"input": {"prompt": 1e999}}'])
def test_no_body_is_an_error_of_the_server(custom_api: Api, content: str) -> None:
    answer = custom_api.client.post(
        "/comfyui-api/workflow/cats/cat", data=content, content_type="application/json"
    )
    assert answer.status_code == 400, answer.text


def test_they_are_in_the_documents_of_comfyui_api(custom_api: Api) -> None:
    document = custom_api.client.get("/comfyui-api/docs/json").json
    operation = document["paths"]["/comfyui-api/workflow/cats/cat"]["post"]
    (reference, own) = operation["requestBody"]["content"]["application/json"]["schema"]["allOf"]
    assert reference["$ref"].rpartition("/")[2] in document["components"]["schemas"]
    assert (operation["summary"], own["properties"]["input"]["required"]) == ("Cats", ["prompt"])
    assert {"200", "202", "400"} <= operation["responses"].keys()
    assert "/comfyui-api/workflow/broken" not in document["paths"]


def test_the_token_is_needed(make_api: Callable[..., Api], tmp_path: Path) -> None:
    api = make_api(api_token="secret", workflow_dir=tmp_path)
    assert api.client.post("/comfyui-api/workflow/a", json={}).status_code == 401
