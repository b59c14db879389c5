"""Paths of the custom workflows in the OpenAPI document: one for each file, with its own schema."""

from collections.abc import Mapping
from typing import Any

from comfyui_workflow.services.custom_workflows.service import CustomDescription, CustomWorkflows


def openapi_paths(
    custom: CustomWorkflows, prefix: str, tag: str, body: str, answers: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    """Returns a path for each file that can be used.

    `body` and `answers` name schemas of the document; `answers` has (description, schema) by status."""
    content = {
        status: {"description": said, "content": {"application/json": {"schema": _reference(schema)}}}
        for status, (said, schema) in answers.items()
    }
    usable = [each for each in custom.all() if each.schema is not None]
    return {f"{prefix}/{each.name}": {"post": _operation(each, tag, body, content)} for each in usable}


def _operation(described: CustomDescription, tag: str, body: str, answers: dict[str, Any]) -> dict[str, Any]:
    own = {"type": "object", "properties": {"input": described.schema}}
    schema = {"allOf": [_reference(body), own]}
    return {
        "tags": [tag],
        "operationId": f"post_workflow_{described.name.replace('/', '_')}",
        "summary": described.summary or described.name,
        "description": described.description or "",
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": answers,
    }


def _reference(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}
