"""Requests of custom workflows: the body of `/workflow/<name>` becomes that of `/prompt`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from comfyui_workflow.api.comfyui_api.errors import (
    NOT_MADE,
    InvalidBody,
    InvalidPart,
    InvalidWorkflowRequest,
)
from comfyui_workflow.api.comfyui_api.requests import PromptSource
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.runs.credentials import without_secrets
from comfyui_workflow.services.custom_workflows.scripts import WorkflowNotMade
from comfyui_workflow.services.custom_workflows.service import CustomOrder, CustomWorkflows
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.overrides import with_inputs

Json = dict[str, Any]
_URL = re.compile(r"(?i)[a-z][a-z0-9+.-]{0,15}://\S+")
_OF_A_VALUE = re.compile(r"input((?:\.[\w-]+)*):? (.+)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class MadePrompt:
    """A request of a custom workflow as one of `/prompt`."""

    body: Json
    source: PromptSource
    values: Json
    """What the answer repeats as `input`: with defaults, and without secrets in URLs."""


def made_prompt(custom: CustomWorkflows, name: str, body: Json) -> MadePrompt:
    """Generates the prompt. Raises: CustomWorkflowNotFound, CustomWorkflowBroken; InvalidWorkflowRequest if
    the values do not fit, InvalidPart if no workflow can be made from them; ServerBusy."""
    values = body.get("input")
    if not isinstance(values, dict):
        raise InvalidWorkflowRequest("Required" if values is None else "Expected object", "/input")
    try:
        made = custom.order(name, values)
        prompt = _prompt_of(made)
    except WorkflowNotMade as error:
        raise InvalidPart(f"{NOT_MADE}: {error.reason}", "input") from error
    except InvalidRequest as error:
        raise _of_the_schema(error) from error
    source = PromptSource(name=name)
    if not made.workflow.graph:
        source = PromptSource(name=name, values=made.inputs, files=made.files)
    rest = {field: value for field, value in body.items() if field != "input"}
    return MadePrompt(body={**rest, "prompt": prompt}, source=source, values=shown_values(made.values))


def shown_values(value: Any) -> Any:
    """Returns the values without secrets in URLs, to any depth."""
    match value:
        case dict():
            return {name: shown_values(each) for name, each in value.items()}
        case list():
            return [shown_values(each) for each in value]
        case str() if _URL.fullmatch(value):
            return without_secrets(value)
    return value


@contextmanager
def errors_of_workflows() -> Iterator[None]:
    """A body with wrong types is told as by Fastify, which checks the body of such a route."""
    try:
        yield
    except InvalidBody as error:
        raise InvalidWorkflowRequest(str(error), "") from error


def _prompt_of(made: CustomOrder) -> Json:
    """Returns the graph with the values of the request, or else the file of the editor without them."""
    if made.workflow.graph:
        return with_inputs(made.workflow.graph, made.inputs, Definitions({}))
    return dict(made.workflow.editor_file or {})


def _of_the_schema(error: InvalidRequest) -> InvalidWorkflowRequest:
    found = _OF_A_VALUE.fullmatch(str(error))
    if found is None:
        return InvalidWorkflowRequest(str(error), "/input")
    return InvalidWorkflowRequest(found[2], f"/input{found[1].replace('.', '/')}")
