"""The OpenAPI document: it is valid, has every route, and agrees with the code that parses requests."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from flask import Request
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel
from werkzeug.datastructures import ImmutableMultiDict

from comfyui_workflow.api.native import schemas
from comfyui_workflow.api.openapi import openapi_document, path_of
from comfyui_workflow.api.operations import Operation, RequestBody
from comfyui_workflow.api.run_requests import BATCH_FIELDS, RUN_FIELDS
from comfyui_workflow.api.runpod.requests import Endpoint, job_order_reader
from comfyui_workflow.api.runpod.schemas import JobBody
from comfyui_workflow.app import SECTIONS
from comfyui_workflow.comfyui.login import LOGIN_FIELDS
from comfyui_workflow.instances.schema import KNOWN_FIELDS
from comfyui_workflow.parsing.json_text import parsed_json
from tests.api.conftest import Api, parts_of
from tests.api.test_workflow import GRAPH, SSH, execute

TOKEN = "a-token-of-this-test"
BY_FLASK_ITSELF = {"HEAD", "OPTIONS"}
Json = dict[str, Any]


def document(api: Api) -> Json:
    return dict(api.client.get("/docs/json").json)


def test_it_is_openapi(api: Api) -> None:
    OpenAPIV31SpecValidator(document(api)).validate()


def test_every_route_is_in_it_and_nothing_else(api: Api) -> None:
    routes = {
        (path_of(rule.rule), method.lower())
        for rule in api.app.url_map.iter_rules()
        for method in (rule.methods or set()) - BY_FLASK_ITSELF
    }
    described = {(path, method) for path, methods in document(api)["paths"].items() for method in methods}
    aliases = {
        (path_of(rule), operation.method.lower())
        for section in SECTIONS
        for operation in section.operations
        for rule in operation.other_rules
    }
    assert described == routes - aliases
    assert aliases < routes


def test_every_variable_of_a_path_is_a_parameter(api: Api) -> None:
    for path, methods in document(api)["paths"].items():
        for described in methods.values():
            named = [each["name"] for each in described.get("parameters", ()) if each["in"] == "path"]
            assert named == re.findall(r"{(\w+)}", path)


def test_examples_are_taken_by_their_schemas(api: Api) -> None:
    with_examples = [schemas.RunOrder, schemas.BatchBody, schemas.InstanceBody]
    described = document(api)["components"]["schemas"]
    for model in with_examples:
        (example,) = described[model.__name__]["examples"]
        model.model_validate({**example})
    assert {name for name, each in described.items() if "examples" in each} == {
        model.__name__ for model in with_examples
    }


def test_operations_have_ids_of_their_own(api: Api) -> None:
    ids = [each["operationId"] for methods in document(api)["paths"].values() for each in methods.values()]
    assert len(ids) == len(set(ids))


def test_the_yaml_says_the_same(api: Api) -> None:
    answer = api.client.get("/docs/yaml")
    assert answer.mimetype == "application/yaml"
    assert yaml.safe_load(answer.text) == document(api)


def test_later_releases_may_say_more_than_the_document(api: Api) -> None:
    assert "additionalProperties" not in document(api)["components"]["schemas"]["RunProgress"]
    described = document(api)["components"]["schemas"]
    for strict in ("RunOrder", "BatchBody", "InstanceBody", "PriorityChange"):
        assert described[strict]["additionalProperties"] is False
    assert "additionalProperties" not in described["JobBody"]


def test_the_page_asks_no_other_host(api: Api) -> None:
    answer = api.client.get("/docs")
    assert "http" not in answer.text.replace("http-equiv", "")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; ")
    assert not any(word in policy for word in ("unsafe", "*", "http"))
    own = re.findall(r'(?:src|href|data-document)="([^"]+)"', answer.text)
    assert len(own) >= 5
    assert [api.client.get(path).status_code for path in own] == [200] * len(own)


@pytest.mark.parametrize("name", ["index.css", "swagger-ui.js", "..%2f__init__.py", "oauth2-redirect.html"])
def test_other_files_of_the_package_are_not_served(api: Api, name: str) -> None:
    assert api.client.get(f"/docs/assets/{name}").status_code == 404


@pytest.mark.parametrize("path", ["/docs", "/docs/json", "/docs/yaml", "/docs/assets/swagger-ui.css"])
def test_with_a_token_it_wants_it_as_the_rest_does(make_api: Callable[..., Api], path: str) -> None:
    api = make_api(api_token=TOKEN)
    assert api.client.get(path).status_code == 401
    assert api.client.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


# fields that the parsers read


class Heard(dict[str, Any]):
    """An object in a body that records which fields are read."""

    def __init__(self, fields: Json) -> None:
        super().__init__({name: heard(value) for name, value in fields.items()})
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> Any:
        self.asked.add(name)
        return super().__getitem__(name)


def heard(value: Any) -> Any:
    if isinstance(value, dict):
        return Heard(value)
    return [heard(each) for each in value] if isinstance(value, list) else value


def names(model: type[BaseModel]) -> set[str]:
    return set(model.model_fields)


def test_a_run_is_read_as_its_schema_says(api: Api) -> None:
    orders = _reader(api).orders
    body = Heard({"ssh_connection": SSH, "workflow": GRAPH})
    orders.read(body)
    assert body.asked == RUN_FIELDS == names(schemas.OneRun)
    assert names(schemas.RunOrder) == RUN_FIELDS | {"again"}
    assert names(schemas.BatchRun) == RUN_FIELDS


def test_a_batch_is_read_as_its_schema_says(api: Api) -> None:
    body = Heard({"ssh_connection": SSH, "workflow": GRAPH, "rows": [{}]})
    _reader(api).orders.read_batch(body)
    assert body.asked == BATCH_FIELDS | RUN_FIELDS == names(schemas.BatchBody)


def test_an_instance_is_read_as_its_schema_says() -> None:
    assert names(schemas.InstanceBody) == KNOWN_FIELDS.union(LOGIN_FIELDS) - {"id"}


def test_a_job_is_read_as_its_schema_says(api: Api) -> None:
    image = {"name": "a.png", "image": "aGVsbG8="}
    bucket = {"endpointUrl": "https://s3.example", "accessId": "i", "accessSecret": "s"}
    given = {"workflow": GRAPH, "images": [image]}
    body = Heard({"input": given, "policy": {"ttl": 20_000}, "s3Config": bucket})
    _reader(api).read(body, Endpoint(key="any", ssh_connection="any"), is_sync=False)
    _check_read(body, JobBody)


@pytest.fixture
def listening(api: Api, monkeypatch: pytest.MonkeyPatch) -> tuple[Api, list[Heard]]:
    """An API whose request bodies record which fields are read."""
    bodies: list[Heard] = []

    def listen(content: bytes, charset: str | None) -> Heard:
        bodies.append(Heard(parsed_json(content, charset)))
        return bodies[-1]

    monkeypatch.setattr("comfyui_workflow.api.request.parsed_json", listen)
    api.client.post("/comfyui/instances", json={"name": "a", "ssh_connection": "ssh gpu.example"})
    bodies.clear()
    return api, bodies


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("/comfyui/workflow/inspect", schemas.WorkflowToInspect),
        ("/comfyui/workflow/{run}/priority", schemas.PriorityChange),
        ("/comfyui/instances/a/free", schemas.FreeBody),
        ("/comfyui/instances/a/interrupt", schemas.InterruptBody),
        ("/comfyui/instances/a/accept-host-key", schemas.HostKeyBody),
    ],
)
def test_a_small_body_is_read_as_its_schema_says(
    listening: tuple[Api, list[Heard]], path: str, schema: type[RequestBody]
) -> None:
    api, bodies = listening
    run_id = execute(api, workflow=GRAPH).json["workflow_id"]
    bodies.clear()
    api.client.post(path.format(run=run_id), json={})
    assert bodies[-1].asked == names(schema)


def test_a_query_is_read_as_its_schema_says(api: Api) -> None:
    asked: set[str] = set()

    class Query(ImmutableMultiDict[str, str]):
        def get(self, key: str, *arguments: Any, **options: Any) -> Any:
            asked.add(key)
            return super().get(key, *arguments, **options)

    class Listening(Request):
        parameter_storage_class = Query

    api.client.post("/comfyui/instances", json={"name": "a", "ssh_connection": "ssh gpu.example"})
    job_id = api.client.post("/run", json={"input": {"workflow": GRAPH}}).json["id"]
    api.client.post(f"/cancel/{job_id}")
    api.app.request_class = Listening
    for path, operation in _operations(instance="a", endpoint_id="any", job_id=job_id):
        if "preview" in names(operation.query or RequestBody):
            continue  # needs a file: below
        asked.clear()
        api.client.open(path, method=operation.method, json={} if operation.body else None)
        assert asked == names(operation.query or RequestBody), f"{operation.method} {path}"


def test_the_size_of_a_preview_is_read_as_its_schema_says(api: Api) -> None:
    described = document(api)["paths"]["/comfyui/workflow/{workflow_id}/outputs/{number}"]["get"]
    size = next(each["schema"] for each in described["parameters"] if each["name"] == "preview")
    bounds = {"minimum": 16, "maximum": 2048}
    assert size["anyOf"][0].items() >= bounds.items()


def _operations(**named: str) -> Iterator[tuple[str, Operation]]:
    """Yields every operation that returns JSON, and its path with these values."""
    for section in SECTIONS:
        for operation in section.operations:
            for rule in operation.rules if not isinstance(operation.answer, str) else ():
                yield re.sub(r"<(?:\w+:)?(\w+)>", lambda found: named.get(found[1], "1"), rule), operation


def _reader(api: Api) -> Any:
    parts = parts_of(api.settings, api.journal, api.service._store, api.executor)
    return job_order_reader(parts)


def _check_read(body: Heard, model: type[BaseModel]) -> None:
    assert body.asked == names(model)
    for name, field in model.model_fields.items():
        nested = _models_in(field.annotation)
        for value in body[name] if isinstance(body.get(name), list) else [body.get(name)]:
            if nested and isinstance(value, Heard):
                _check_read(value, nested[0])


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for each in getattr(annotation, "__args__", ()) for model in _models_in(each)]


def test_the_document_is_made_of_the_sections_alone() -> None:
    assert openapi_document([], "1")["paths"] == {}
