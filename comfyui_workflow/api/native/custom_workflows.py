"""/workflow/*: custom workflows, the files of WORKFLOW_DIR."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, jsonify

from comfyui_workflow.api import custom_workflow_paths
from comfyui_workflow.api.error_responses import error_response, http_error_response
from comfyui_workflow.api.mount import Api, ApiServices
from comfyui_workflow.api.native import schemas
from comfyui_workflow.api.operations import Operation, Section, register
from comfyui_workflow.api.request import idempotency_key, json_body, refuse_unknown_parts
from comfyui_workflow.api.run_requests import OrderReader, order_reader
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.runs.model import Run
from comfyui_workflow.services.custom_workflows.service import CustomDescription, CustomOrder, CustomWorkflows
from comfyui_workflow.services.runs import RunService

PREFIX = "/workflow"
TAG = "Custom workflows"


@dataclass(frozen=True, kw_only=True)
class CustomViews:
    custom: CustomWorkflows
    orders: OrderReader
    service: RunService

    def list_workflows(self) -> Response:
        return jsonify(success=True, workflows=[_document(each) for each in self.custom.all()])

    def show(self, name: str) -> Response:
        return jsonify(success=True, workflow=_document(self.custom.get(name)))

    def run(self, name: str) -> Response:
        key = idempotency_key(name)
        run = self.service.submitted_before(key) or self._submitted(name, key)
        return jsonify(success=True, workflow_id=run.run_id, message="Workflow execution started")

    def _submitted(self, name: str, key: str | None) -> Run:
        body = json_body(schemas.CustomRunBody)
        values = body.get("input")
        if not isinstance(values, dict | None):
            raise InvalidRequest('input must be an object: {"<parameter>": value}')
        made = self.custom.order(name, values or {})
        request, api_key = self.orders.read_with_key(execute_body(name, body, made))
        return self.service.submit(request, key, api_key=api_key)


def execute_body(name: str, body: Mapping[str, Any], made: CustomOrder) -> dict[str, Any]:
    """Returns the body of `execute` for a request of a custom workflow."""
    rest = {field: value for field, value in body.items() if field != "input"}
    given = rest.get("input_images")
    images = [*(given if isinstance(given, list) else []), *made.files]
    return {
        **rest,
        "ssh_connection": rest.get("ssh_connection") or "any",
        "workflow_name": rest.get("workflow_name") or name,
        "workflow": made.workflow.graph or made.workflow.editor_file,
        "inputs": made.inputs,
        "input_images": images if isinstance(given, list | None) else given,
    }


def openapi_paths(custom: CustomWorkflows) -> dict[str, Any]:
    """Returns the paths of the custom workflows for the OpenAPI document."""
    answers = {"200": ("The run is stored", "RunStarted")}
    return custom_workflow_paths.openapi_paths(custom, PREFIX, TAG, "CustomRunBody", answers)


def _document(described: CustomDescription) -> dict[str, Any]:
    return {
        "name": described.name,
        "kind": described.kind,
        "summary": described.summary,
        "description": described.description,
        "input_schema": described.schema,
        "trouble": described.trouble,
    }


def create_blueprint(services: ApiServices) -> Blueprint:
    routes = Blueprint("custom_workflows", __name__)
    views = CustomViews(
        custom=services.custom_workflows, orders=order_reader(services), service=services.service
    )
    register(routes, OPERATIONS, views, refuse_unknown_parts)
    return routes


OPERATIONS = (
    Operation(
        method="GET",
        rule=PREFIX,
        view=CustomViews.list_workflows,
        summary="List custom workflows",
        answer=schemas.CustomWorkflowsResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<path:name>",
        view=CustomViews.show,
        summary="Get a custom workflow and its parameters",
        description="Errors: 404 `custom_workflow_not_found`.",
        answer=schemas.CustomWorkflowResponse,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/<path:name>",
        view=CustomViews.run,
        summary="Start a run of a custom workflow",
        description="Returns as soon as the run is stored, as `execute` does. With the header "
        "`Idempotency-Key`, a repeated request with the same body returns the existing run. Errors: 400 a "
        "value does not fit, 404 `custom_workflow_not_found`, 500 `custom_workflow_broken`, 503 four "
        "workflows are being prepared, 507 local disk full.",
        body=schemas.CustomRunBody,
        answer=schemas.RunStarted,
    ),
)

API = Api(
    prefix=PREFIX,
    create_blueprint=create_blueprint,
    error_response=error_response,
    http_error_response=http_error_response,
    section=Section(
        tag=TAG,
        description="Files of `WORKFLOW_DIR` as routes. Details: docs/api/custom-workflows.md",
        operations=OPERATIONS,
        failure=schemas.Failure,
        path_parameters={"name": "Path of the file in `WORKFLOW_DIR`, without its suffix"},
    ),
)
