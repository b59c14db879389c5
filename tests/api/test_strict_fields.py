"""Unknown fields of bodies and queries are refused with the field that was meant."""

import re
from typing import Any

import pytest

from comfyui_workflow.api.operations import OpenRequestBody, Operation
from comfyui_workflow.app import SECTIONS
from tests.api.conftest import Api
from tests.api.test_workflow import GRAPH, SSH, execute

NATIVE = ("Runs", "Batches", "Instances", "Webhooks", "Custom workflows")
JOB = {"input": {"workflow": GRAPH}}
Json = dict[str, Any]


def native_operations() -> list[Operation]:
    return [each for section in SECTIONS if section.tag in NATIVE for each in section.operations]


def name_of(operation: Operation) -> str:
    return f"{operation.method} {operation.rule}"


def path_of(operation: Operation) -> str:
    return re.sub(r"<(int:)?\w+>", "1", operation.rule)


def refusal(api: Api, method: str, path: str, **request: Any) -> str:
    answer = api.client.open(path, method=method, **request)
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request"), answer.text
    return str(answer.json["message"])


@pytest.fixture
def with_instance(api: Api) -> Api:
    api.instances.directory.add({"name": "1", "ssh_connection": SSH})
    return api


@pytest.mark.parametrize("operation", native_operations(), ids=name_of)
def test_no_route_swallows_a_parameter(api: Api, operation: Operation) -> None:
    message = refusal(api, operation.method, f"{path_of(operation)}?limt=3")
    assert message.startswith("limt is not a parameter of this request")
    if operation.query is not None and "limit" in operation.query.model_fields:
        assert "; the nearest is limit. The parameters are " in message


@pytest.mark.parametrize(
    "operation", [each for each in native_operations() if each.method != "GET"], ids=name_of
)
def test_no_route_swallows_a_field(with_instance: Api, operation: Operation) -> None:
    if operation.upload is not None:
        sent: Json = {"data": {"unheard_of": "1"}, "content_type": "multipart/form-data"}
    else:
        sent = {"json": {"unheard_of": 1}}
    message = refusal(with_instance, operation.method, path_of(operation), **sent)
    assert message.startswith("unheard_of is not a field of ")


@pytest.mark.parametrize("field", ["inputs", "priority", "name", "matrix", "unload_models", "fingerprint"])
def test_a_misspelled_field_is_told_with_the_right_one(with_instance: Api, field: str) -> None:
    written = field[:2] + field[3:]
    found = 0
    for operation in native_operations():
        if operation.body is not None and field in operation.body.model_fields:
            path = path_of(operation)
            message = refusal(with_instance, operation.method, path, json={written: None})
            assert message.startswith(f"{written} is not a field of ")
            assert f"; the nearest is {field}. The fields are " in message
            found += 1
    assert found


def test_input_for_inputs_starts_nothing(api: Api) -> None:
    answer = execute(api, workflow=GRAPH, input={"2.filename_prefix": "lake"})
    assert answer.status_code == 400
    assert "input is not a field of this request; the nearest is inputs" in answer.json["message"]
    assert api.executor.started == []


def test_an_empty_body_and_null_are_no_unknown_fields(with_instance: Api) -> None:
    run_id = execute(with_instance, workflow=GRAPH, inputs=None).json["workflow_id"]
    assert with_instance.client.post(f"/comfyui/workflow/{run_id}/cancel", json={}).status_code == 200


def test_a_page_of_this_server_takes_any_query(api: Api) -> None:
    assert api.client.get("/?from=a-bookmark").status_code == 200
    assert api.client.get("/health?at=7").status_code == 200


# jobs: RunPod ignores unknown fields, so only misspelled ones are refused

EXTRAS: list[Json] = [
    {"webhookV2": "https://hooks.example/v2", "webhook": "https://hooks.example/v1"},
    {"webhookV2": "https://hooks.example/v2"},
    {"policy": {"executionTimeout": 600_000, "lowPriority": True, "ttl": 60_000, "other": 1}},
    {"id": "mine", "tags": ["a"], "meta": {"user": 7}},
    {"input": {"workflow": GRAPH, "prompt": "a lake", "seed": 7, "images": [], "image": "x", "width": 64}},
]


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("path", ["/run", "/v2/any/run?ttl=60000&client=7"])
def test_a_job_may_have_what_clients_of_runpod_send(api: Api, path: str, extra: Json) -> None:
    answer = api.client.post(path, json={**JOB, **extra})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/run", {"webhok": "https://a.example"}, "webhok is not a field of a job; the nearest is webhook"),
        ("/run", {"s3config": {}}, "s3config is not a field of a job; the nearest is s3Config"),
        ("/run", {"policy": {"execution_timeout": 9000}}, "the nearest is executionTimeout"),
        (
            "/run",
            {"input": {"workflow": GRAPH, "image": []}},
            "image is not a field of input; the nearest is",
        ),
        ("/run", {"input": {"workflow": GRAPH, "api_key_comfy_org": "k"}}, "nearest is comfy_org_api_key"),
        ("/runsync?wiat=1000", {}, "wiat is not a parameter of this request; the nearest is wait"),
    ],
)
def test_a_misspelled_field_of_a_job_is_refused(api: Api, path: str, body: Json, sentence: str) -> None:
    answer = api.client.post(path, json={**JOB, **body})
    assert answer.status_code == 400
    assert sentence in answer.json["error"]
    assert api.executor.started == []


def test_the_schemas_say_which_api_is_strict() -> None:
    for section in SECTIONS:
        for operation in section.operations:
            for model in filter(None, (operation.body, operation.query)):
                assert issubclass(model, OpenRequestBody) == (section.tag not in NATIVE), model


def test_a_body_that_is_nested_too_deeply_is_ignored_where_none_is_taken(api: Api) -> None:
    answer = api.client.get("/comfyui/webhooks", data=b"[" * 100_000, content_type="application/json")
    assert answer.status_code == 200
