"""Generates the OpenAPI 3.1 document from the tables of operations and the pydantic models."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from comfyui_workflow.api.operations import Operation, Section

Json = dict[str, Any]

_REF = "#/components/schemas/{model}"
_BINARY: Json = {"type": "string", "contentMediaType": "application/octet-stream"}


def openapi_document(sections: Iterable[Section], version: str) -> Json:
    listed = list(sections)
    models = list(dict.fromkeys(_models(listed)))
    refs, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    schemas = {model: refs[model, "validation"] for model in models}
    paths: Json = {}
    for section in listed:
        for operation in section.operations:
            for rule in operation.described_rules:
                entry = _operation(operation, rule, section, schemas)
                paths.setdefault(path_of(rule), {})[operation.method.lower()] = entry
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "comfyui-workflow",
            "version": version,
            "description": "Runs ComfyUI workflows on rented GPUs over SSH and downloads every output file.",
        },
        "tags": [{"name": each.tag, "description": each.description} for each in listed],
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def path_of(rule: str) -> str:
    """Converts a Flask rule to a path template: `/runs/<int:number>` to `/runs/{number}`."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def _models(sections: Iterable[Section]) -> Iterator[type[BaseModel]]:
    for section in sections:
        if section.failure is not None:
            yield section.failure
        for each in section.operations:
            found = (each.body, each.answer)
            yield from (model for model in found if isinstance(model, type))


def _operation(
    operation: Operation, rule: str, section: Section, schemas: dict[type[BaseModel], Json]
) -> Json:
    entry: Json = {
        "tags": [section.tag],
        "operationId": _operation_id(operation, rule),
        "summary": operation.summary,
        "responses": _responses(operation, section, schemas),
    }
    if operation.description:
        entry["description"] = operation.description
    parameters = [*_path_parameters(rule, section.path_parameters), *_query_parameters(operation.query)]
    if parameters:
        entry["parameters"] = parameters
    body = _request_body(operation, schemas)
    if body is not None:
        entry["requestBody"] = body
    if section.is_open:
        entry["security"] = []
    return entry


def _operation_id(operation: Operation, rule: str) -> str:
    words = re.sub(r"<(?:\w+:)?(\w+)>", r"\1", rule)
    return re.sub(r"\W+", "_", f"{operation.method.lower()}{words}").strip("_")


def _responses(operation: Operation, section: Section, schemas: dict[type[BaseModel], Json]) -> Json:
    responses: Json = {str(operation.status): _response(operation, schemas)}
    if section.has_etags and operation.method == "GET" and not isinstance(operation.answer, str):
        responses["304"] = {
            "description": "Not modified: the response still has the `ETag` in `If-None-Match`"
        }
    if section.failure is not None:
        content = {"application/json": {"schema": schemas[section.failure]}}
        responses["default"] = {
            "description": "Error: a sentence for the user and, in the native API, a stable code",
            "content": content,
        }
    return responses


def _response(operation: Operation, schemas: dict[type[BaseModel], Json]) -> Json:
    answer = operation.answer
    if isinstance(answer, str):
        schema = {"type": "string"} if answer.startswith("text/") else _BINARY
        content = {answer: {"schema": schema}} if answer else {}
        return {"description": operation.summary, **({"content": content} if content else {})}
    return {"description": operation.summary, "content": {"application/json": {"schema": schemas[answer]}}}


def _path_parameters(rule: str, descriptions: Mapping[str, str]) -> Iterator[Json]:
    for kind, name in re.findall(r"<(?:(\w+):)?(\w+)>", rule):
        schema: Json = {"type": "integer", "minimum": 0} if kind == "int" else {"type": "string"}
        described = {"description": descriptions[name]} if name in descriptions else {}
        yield {"name": name, "in": "path", "required": True, **described, "schema": schema}


def _query_parameters(query: type[BaseModel] | None) -> Iterator[Json]:
    if query is None:
        return
    model_schema = query.model_json_schema(ref_template=_REF)
    for name, field in model_schema["properties"].items():
        schema = {key: value for key, value in field.items() if key not in ("title", "description")}
        described = {"description": field["description"]} if "description" in field else {}
        yield {"name": name, "in": "query", "required": False, **described, "schema": schema}


def _request_body(operation: Operation, schemas: dict[type[BaseModel], Json]) -> Json | None:
    if operation.upload is not None:
        file: Json = {
            "type": "object",
            "properties": {operation.upload: _BINARY},
            "required": [operation.upload],
        }
        return {"required": True, "content": {"multipart/form-data": {"schema": file}}}
    if operation.body is None:
        return None
    content = {operation.body_type: {"schema": schemas[operation.body]}}
    return {"required": not operation.is_body_optional, "content": content}
