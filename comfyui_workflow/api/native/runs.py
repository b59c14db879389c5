"""/comfyui/workflow/*: the native API (Workflow Execution API v1.0 with extensions)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, jsonify, request

from comfyui_workflow.api.archives import send_archive
from comfyui_workflow.api.error_responses import error_response, http_error_response
from comfyui_workflow.api.files import send_live_preview, send_output, send_preview
from comfyui_workflow.api.mount import Api, ApiServices
from comfyui_workflow.api.native import schemas
from comfyui_workflow.api.native.rerun import (
    graph_of_run,
    merge_bodies,
    repeated_run_id,
    request_body_of,
    workflow_of,
)
from comfyui_workflow.api.native.run_documents import RunDocuments
from comfyui_workflow.api.native.run_list import RunList
from comfyui_workflow.api.operations import Operation, Section, register
from comfyui_workflow.api.request import idempotency_key, json_body, number, refuse_unknown_parts
from comfyui_workflow.api.response_cache import ResponseCache, create_response_cache
from comfyui_workflow.api.run_requests import OrderReader, order_reader, read_priority
from comfyui_workflow.errors import InvalidRequest, RunConflict, RunFinished, RunNotFound
from comfyui_workflow.execution.live_progress import LiveProgress
from comfyui_workflow.runs.document import output_document
from comfyui_workflow.runs.model import Run
from comfyui_workflow.runs.summary import summary_of
from comfyui_workflow.scheduling.capacity import Registry
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.services.uploads import Uploads
from comfyui_workflow.services.validation import ValidationResult, ValidationService
from comfyui_workflow.stores.damage import DamageReport, damage_document
from comfyui_workflow.stores.journal import now
from comfyui_workflow.workflows.editable_inputs import key_inputs
from comfyui_workflow.workflows.findings import errors, warnings
from comfyui_workflow.workflows.graph import node_title
from comfyui_workflow.workflows.model import Workflow
from comfyui_workflow.workflows.node_definitions import Definitions

PREFIX = "/comfyui/workflow"


@dataclass(frozen=True, kw_only=True)
class OrderViews:
    """Routes whose body is a run or a workflow."""

    service: RunService
    inspector: ValidationService
    orders: OrderReader
    directory: Registry

    def execute(self) -> Response:
        key = idempotency_key()
        run = self.service.submitted_before(key) or self._submitted(key)
        return jsonify(success=True, workflow_id=run.run_id, message="Workflow execution started")

    def validate(self) -> Response:
        run_request, instance = self.orders.read_with_instance(self._execute_body())
        inspection = self.inspector.inspect(run_request, host_key=instance.host_key if instance else None)
        return jsonify(
            success=True, **_inspection_document(inspection), instance=instance.name if instance else None
        )

    def inspect(self) -> Response:
        body = json_body(schemas.WorkflowToInspect)
        repeated = repeated_run_id(body)
        given = body if repeated is None else {"workflow": workflow_of(self.service.get(repeated))}
        return jsonify(success=True, **_workflow_document(self.orders.read_workflow(given)))

    def _submitted(self, key: str | None) -> Run:
        request, api_key = self.orders.read_with_key(self._execute_body())
        return self.service.submit(request, key, api_key=api_key)

    def _execute_body(self) -> dict[str, Any]:
        body = json_body(schemas.RunOrder)
        repeated = repeated_run_id(body)
        if repeated is None:
            return body
        return merge_bodies(request_body_of(self.service.get(repeated).request, self.directory), body)


@dataclass(frozen=True, kw_only=True)
class RunViews:
    """Routes of one run, of the active runs, and of damaged records."""

    service: RunService
    directory: Registry
    documents: RunDocuments
    cache: ResponseCache
    damage_report: DamageReport

    def progress(self, workflow_id: str) -> Response:
        return jsonify(success=True, progress=self.documents.progress(self.service.get(workflow_id)))

    def request_of_run(self, workflow_id: str) -> Response:
        run = self.service.get(workflow_id)
        body = request_body_of(run.request, self.directory)
        return jsonify(success=True, request=body, graph=graph_of_run(run))

    def cancel(self, workflow_id: str) -> Response:
        try:
            self.service.cancel(workflow_id)
        except RunNotFound as error:
            raise RunNotFound(f"Workflow not found or already completed: {workflow_id}") from error
        except RunConflict as error:
            raise RunFinished(f"Workflow not found or already completed: {workflow_id}") from error
        return jsonify(success=True, message="Workflow cancellation initiated")

    def retry(self, workflow_id: str) -> Response:
        self.service.retry(workflow_id)
        return jsonify(success=True, message="Workflow retry started")

    def priority(self, workflow_id: str) -> Response:
        self.service.prioritize(workflow_id, read_priority(json_body(schemas.PriorityChange)))
        return jsonify(success=True, message="Priority changed")

    def state(self) -> Response:
        run = self.service.latest()
        return jsonify(success=True, state=self.documents.progress(run) if run else None)

    def damage(self) -> Response:
        return jsonify(success=True, damage=[damage_document(each) for each in self.damage_report.all()])

    def active_runs(self) -> Response:
        return self.cache.response_of(request.path, self._now_document)

    def active(self, workflow_id: str) -> Response:
        try:
            is_active = not self.service.get(workflow_id).is_finished
        except RunNotFound:
            is_active = False
        return jsonify(success=True, active=is_active)

    def _now_document(self) -> Response:
        status_version, found, at = self.service.status_version, self.service.underway(), now()

        def lines(runs: tuple[Run, ...]) -> list[dict[str, Any]]:
            return [self.documents.line(summary_of(run), at) for run in runs]

        return jsonify(
            success=True,
            executing=lines(found.executing),
            waiting=lines(found.waiting),
            counts={"executing": found.executing_count, "queued": found.waiting_count},
            version=status_version,
        )


@dataclass(frozen=True, kw_only=True)
class FileViews:
    """Routes of output files, live previews and uploaded files."""

    service: RunService
    live_view: LiveProgress
    uploads: Uploads

    def outputs(self, workflow_id: str) -> Response:
        found = self.service.get(workflow_id).outputs
        return jsonify(success=True, outputs=[output_document(output) for output in found])

    def archive(self, workflow_id: str) -> Response:
        run = self.service.get(workflow_id)
        sent = send_archive(run.outputs, run.request.workflow_name)
        if sent is None:
            raise RunNotFound(f"No output of {workflow_id} is on the server")
        return sent

    def output_file(self, workflow_id: str, number: int) -> Response:
        path = local_output(self.service.get(workflow_id), number)
        size = request.args.get("preview")
        return send_output(path) if size is None else send_preview(path, _pixels(size))

    def live_preview(self, workflow_id: str) -> Response:
        run = self.service.get(workflow_id)
        live = self.live_view.preview(workflow_id)
        if live is None or run.is_finished:
            # not an error: the preview may end between the progress response and this request
            return Response(status=204)
        return send_live_preview(live.preview.picture, live.preview.content_type)

    def upload_files(self) -> Response:
        group = request.args.get("group")
        uploads = [upload for upload in request.files.values() if upload.filename]
        if not uploads:
            raise InvalidRequest('Send the file as multipart/form-data, in a field called "file"')
        saved = [self.uploads.keep(upload.stream, upload.filename or "", group) for upload in uploads]
        named = [{"path": str(path), "filename": path.name} for path in saved]
        return jsonify(success=True, path=named[0]["path"], files=named)


def create_blueprint(services: ApiServices) -> Blueprint:
    routes = Blueprint("workflow", __name__)
    service, directory = services.service, services.instances.directory
    documents = RunDocuments(service=service, live_view=services.live_view, notifier=services.notifier)
    cache = create_response_cache(routes, lambda: service.status_version)
    orders = order_reader(services)
    register(
        routes,
        ORDER_OPERATIONS,
        OrderViews(service=service, inspector=services.inspector, orders=orders, directory=directory),
        refuse_unknown_parts,
    )
    register(
        routes,
        RUN_OPERATIONS,
        RunViews(
            service=service,
            directory=directory,
            documents=documents,
            cache=cache,
            damage_report=services.damage,
        ),
        refuse_unknown_parts,
    )
    run_list = RunList(service=service, batches=services.batches, documents=documents, cache=cache)
    register(routes, LIST_OPERATIONS, run_list, refuse_unknown_parts)
    files = FileViews(service=service, live_view=services.live_view, uploads=services.uploads)
    register(routes, FILE_OPERATIONS, files, refuse_unknown_parts)
    return routes


def local_output(run: Run, number: int) -> Path:
    """Returns the path of output `number` (counted from 0) of a run. Raises: RunNotFound."""
    if number >= len(run.outputs):
        raise RunNotFound(f"Output not found: {run.run_id} has {len(run.outputs)} outputs")
    output = run.outputs[number]
    if output.local_path is None:
        raise RunNotFound(f"Output not downloaded: {output.filename} ({output.error or 'not yet'})")
    path = Path(output.local_path)
    if not path.is_file():
        raise RunNotFound(f"Output not found: {output.filename} is not at {path} any more")
    return path


def _inspection_document(inspection: ValidationResult) -> dict[str, Any]:
    verdict = inspection.verdict
    return {
        "valid": verdict.would_run,
        "errors": [finding.document() for finding in errors(verdict.findings)],
        "warnings": [finding.document() for finding in warnings(verdict.findings)],
        "missing": [each.document() for each in inspection.missing],
        "missing_packs": [each.document() for each in inspection.missing_packs],
        "graph": inspection.graph,
        "key_inputs": [each.document() for each in inspection.key_inputs],
    }


def _workflow_document(workflow: Workflow) -> dict[str, Any]:
    """Returns the parts of the document that need no instance."""
    nodes = workflow.outline.items()
    return {
        "format": "api" if workflow.graph else "editor",
        "nodes": [
            {"node_id": node_id, "class_type": node["class_type"], "title": node_title(node)}
            for node_id, node in nodes
        ],
        "key_inputs": [each.document() for each in key_inputs(workflow.outline, Definitions({}))],
        "needs_instance": not workflow.graph,
    }


def _pixels(text: str) -> int:
    """Parses `preview`: the longest side in pixels. `1`, `true` and an empty value mean 256."""
    return (
        256
        if text in ("", "1", "true")
        else number(text, "preview", schemas.LEAST_PREVIEW_PX, schemas.LARGEST_PREVIEW_PX)
    )


ORDER_OPERATIONS = (
    Operation(
        method="POST",
        rule=f"{PREFIX}/execute",
        view=OrderViews.execute,
        summary="Start a run",
        description="Returns as soon as the run is stored. With the header `Idempotency-Key`, a repeated "
        "request with the same body returns the existing run. Errors: 400 invalid field or file, "
        "404 no run with the id `again`, 507 local disk full.",
        body=schemas.RunOrder,
        answer=schemas.RunStarted,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/validate",
        view=OrderViews.validate,
        summary="Validate a workflow on an instance",
        description="Takes the body of `execute`, but submits and uploads nothing. Returns 200 also if the "
        "workflow is not valid. Errors: 400 not a workflow, 502 instance or ComfyUI unreachable, "
        "503 four validations are in progress, 504 the server is stopping.",
        body=schemas.RunOrder,
        answer=schemas.ValidationResponse,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/inspect",
        view=OrderViews.inspect,
        summary="Inspect a workflow without an instance",
        description="Errors: 400 not a workflow, 404 no run with the id `again`.",
        body=schemas.WorkflowToInspect,
        answer=schemas.InspectResponse,
    ),
)

RUN_OPERATIONS = (
    Operation(
        method="GET",
        rule=f"{PREFIX}/<workflow_id>/progress",
        view=RunViews.progress,
        summary="Get the progress of a run",
        description="Errors: 404 `run_not_found`.",
        answer=schemas.ProgressResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<workflow_id>/request",
        view=RunViews.request_of_run,
        summary="Get the request of a run and the graph that it submits",
        description="Errors: 404 `run_not_found`.",
        answer=schemas.RequestResponse,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/<workflow_id>/cancel",
        view=RunViews.cancel,
        summary="Cancel a run",
        description="Stops the prompt of this run and no other. Returns at once; the run ends when the "
        "instance confirms. Errors: 404 `run_not_found`, `run_finished`.",
        answer=schemas.Done,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/<workflow_id>/retry",
        view=RunViews.retry,
        summary="Retry a failed run",
        description="Resumes at the step that failed; never executes the prompt again. Errors: 404 "
        "`run_not_found`, 409 the run cannot be retried (`retry_refused` says why).",
        answer=schemas.Done,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/<workflow_id>/priority",
        view=RunViews.priority,
        summary="Change the priority of a run",
        description="Errors: 400 invalid priority, 404 `run_not_found`, 409 the run is finished.",
        body=schemas.PriorityChange,
        answer=schemas.Done,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<workflow_id>/active",
        view=RunViews.active,
        summary="Check whether a run is active",
        description="Returns false for an unknown run.",
        answer=schemas.ActiveResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/state",
        view=RunViews.state,
        summary="Get the progress of the latest run",
        answer=schemas.StateResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/now",
        view=RunViews.active_runs,
        summary="List the runs that execute or wait",
        description="Concurrent requests share one response: node progress may be about 0.5 s old. "
        "Changes by earlier requests are always included.",
        answer=schemas.NowResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/damage",
        view=RunViews.damage,
        summary="List records on disk that could not be read",
        description="Since the start of the server.",
        answer=schemas.DamageResponse,
    ),
)

LIST_OPERATIONS = (
    Operation(
        method="GET",
        rule=PREFIX,
        view=RunList.runs,
        summary="List runs, newest first",
        description="Errors: 400 invalid parameter.",
        query=schemas.ListQuery,
        answer=schemas.RunsResponse,
    ),
)

FILE_OPERATIONS = (
    Operation(
        method="GET",
        rule=f"{PREFIX}/<workflow_id>/outputs",
        view=FileViews.outputs,
        summary="List the output files of a run",
        description="Errors: 404 `run_not_found`.",
        answer=schemas.OutputsResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<workflow_id>/outputs.zip",
        view=FileViews.archive,
        summary="Download all output files of a run as one ZIP",
        description="Not compressed. Files that are not on the server are left out. Errors: 404 no "
        "output is on the server, 503 four archives are being sent.",
        answer="application/zip",
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<workflow_id>/outputs/<int:number>",
        view=FileViews.output_file,
        summary="Download one output file",
        description="Outputs are counted from 0. Supports `Range`, `If-None-Match` and previews. "
        "Errors: 400 no preview of this file, 404 no such output, or not downloaded.",
        query=schemas.PreviewQuery,
        answer="*/*",
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<workflow_id>/live-preview",
        view=FileViews.live_preview,
        summary="Get the live preview of a run",
        description="The latest picture of the node that executes. 204 without a body if there is none. "
        "Errors: 404 `run_not_found`.",
        query=schemas.LivePreviewQuery,
        answer="image/*",
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/files",
        view=FileViews.upload_files,
        summary="Upload workflows or images to the server",
        description="Returns the paths for `workflow_file` and `input_images`. A file name may have "
        "directories: `frames/0001.png`. Errors: 400 no file in the form, 507 local disk full.",
        query=schemas.UploadQuery,
        upload="file",
        answer=schemas.FilesResponse,
    ),
)

API = Api(
    prefix="/comfyui",
    create_blueprint=create_blueprint,
    error_response=error_response,
    http_error_response=http_error_response,
    section=Section(
        tag="Runs",
        description="Runs: one execution of a workflow on an instance. Details: docs/api/workflow.md",
        operations=(*ORDER_OPERATIONS, *RUN_OPERATIONS, *LIST_OPERATIONS, *FILE_OPERATIONS),
        failure=schemas.Failure,
        path_parameters={"workflow_id": "Id of the run", "number": "Number of the output, counted from 0"},
    ),
)
