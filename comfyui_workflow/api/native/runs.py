"""/comfyui/workflow/*: the native API (Workflow Execution API v1.0, and what we add to it)."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, jsonify, request

from comfyui_workflow.api.archives import send_archive
from comfyui_workflow.api.error_responses import error_response, http_error_response
from comfyui_workflow.api.files import send_live_preview, send_output, send_preview
from comfyui_workflow.api.mount import Api, ApiServices
from comfyui_workflow.api.native import schemas
from comfyui_workflow.api.native.rerun import (
    body_again,
    graph_of_run,
    run_meant,
    with_changes,
    workflow_of,
)
from comfyui_workflow.api.native.run_documents import RunDocuments
from comfyui_workflow.api.native.run_list import RunList
from comfyui_workflow.api.operations import Operation, Section, register
from comfyui_workflow.api.request import json_body, number
from comfyui_workflow.api.response_cache import SharedAnswers, shared_answers
from comfyui_workflow.api.run_requests import OrderReader, order_reader, read_priority
from comfyui_workflow.errors import InvalidRequest, RunConflict, RunNotFound
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
    """Routes that take a workflow."""

    service: RunService
    inspector: ValidationService
    orders: OrderReader
    directory: Registry

    def execute(self) -> Response:
        run = self.service.submit(self.orders.read(self._body_of_order()), _idempotency_key())
        return jsonify(success=True, workflow_id=run.run_id, message="Workflow execution started")

    def validate(self) -> Response:
        asked, instance = self.orders.read_placed(self._body_of_order())
        inspection = self.inspector.inspect(asked, host_key=instance.host_key if instance else None)
        return jsonify(
            success=True, **_inspection_document(inspection), instance=instance.name if instance else None
        )

    def inspect(self) -> Response:
        body = json_body()
        again = run_meant(body)
        given = body if again is None else {"workflow": workflow_of(self.service.get(again))}
        return jsonify(success=True, **_given_document(self.orders.read_workflow(given)))

    def _body_of_order(self) -> dict[str, Any]:
        body = json_body()
        again = run_meant(body)
        if again is None:
            return body
        return with_changes(body_again(self.service.get(again).request, self.directory), body)


@dataclass(frozen=True, kw_only=True)
class RunViews:
    """Routes of one run, and of those that are under way."""

    service: RunService
    directory: Registry
    documents: RunDocuments
    answers: SharedAnswers
    damage_report: DamageReport

    def progress(self, workflow_id: str) -> Response:
        return jsonify(success=True, progress=self.documents.progress(self.service.get(workflow_id)))

    def asked(self, workflow_id: str) -> Response:
        run = self.service.get(workflow_id)
        body = body_again(run.request, self.directory)
        return jsonify(success=True, request=body, graph=graph_of_run(run))

    def cancel(self, workflow_id: str) -> Response:
        try:
            self.service.cancel(workflow_id)
        except (RunNotFound, RunConflict) as error:
            raise RunNotFound(f"Workflow not found or already completed: {workflow_id}") from error
        return jsonify(success=True, message="Workflow cancellation initiated")

    def retry(self, workflow_id: str) -> Response:
        self.service.retry(workflow_id)
        return jsonify(success=True, message="Workflow retry started")

    def priority(self, workflow_id: str) -> Response:
        self.service.prioritize(workflow_id, read_priority(json_body()))
        return jsonify(success=True, message="Priority changed")

    def state(self) -> Response:
        run = self.service.latest()
        return jsonify(success=True, state=self.documents.progress(run) if run else None)

    def damage(self) -> Response:
        """The records on disk that could not be read since the server was started."""
        return jsonify(success=True, damage=[damage_document(each) for each in self.damage_report.all()])

    def underway(self) -> Response:
        return self.answers.answer(request.path, self._now_document)

    def active(self, workflow_id: str) -> Response:
        try:
            is_active = not self.service.get(workflow_id).is_finished
        except RunNotFound:
            is_active = False
        return jsonify(success=True, active=is_active)

    def _now_document(self) -> Response:
        turning_points, found, at = self.service.turning_points, self.service.underway(), now()

        def lines(runs: tuple[Run, ...]) -> list[dict[str, Any]]:
            return [self.documents.line(summary_of(run), at) for run in runs]

        return jsonify(
            success=True,
            executing=lines(found.executing),
            waiting=lines(found.waiting),
            counts={"executing": found.executing_count, "queued": found.waiting_count},
            version=turning_points,
        )


@dataclass(frozen=True, kw_only=True)
class FileViews:
    """The files of a run, its live preview, and files that are sent here."""

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
            raise RunNotFound(f"No output of {workflow_id} is here")
        return sent

    def output_file(self, workflow_id: str, number: int) -> Response:
        path = local_output(self.service.get(workflow_id), number)
        size = request.args.get("preview")
        return send_output(path) if size is None else send_preview(path, _pixels(size))

    def live_preview(self, workflow_id: str) -> Response:
        run = self.service.get(workflow_id)
        live = self.live_view.preview(workflow_id)
        if live is None or run.is_finished:
            return Response(status=204)  # no failure: whoever was told of one asks a moment too late
        return send_live_preview(live.preview.picture, live.preview.content_type)

    def keep_files(self) -> Response:
        uploads = [upload for upload in request.files.values() if upload.filename]
        if not uploads:
            raise InvalidRequest('Send the file as multipart/form-data, in a field called "file"')
        kept = [self.uploads.keep(upload.stream, upload.filename or "") for upload in uploads]
        named = [{"path": str(path), "filename": path.name} for path in kept]
        return jsonify(success=True, path=named[0]["path"], files=named)


def create_blueprint(parts: ApiServices) -> Blueprint:
    routes = Blueprint("workflow", __name__)
    service, directory = parts.service, parts.instances.directory
    documents = RunDocuments(service=service, live_view=parts.live_view)
    answers = shared_answers(routes, lambda: service.turning_points)
    orders = order_reader(parts)
    register(
        routes,
        ORDER_OPERATIONS,
        OrderViews(service=service, inspector=parts.inspector, orders=orders, directory=directory),
    )
    register(
        routes,
        RUN_OPERATIONS,
        RunViews(
            service=service,
            directory=directory,
            documents=documents,
            answers=answers,
            damage_report=parts.damage,
        ),
    )
    run_list = RunList(service=service, batches=parts.batches, documents=documents, answers=answers)
    register(routes, LIST_OPERATIONS, run_list)
    files = FileViews(service=service, live_view=parts.live_view, uploads=parts.uploads)
    register(routes, FILE_OPERATIONS, files)
    return routes


def local_output(run: Run, number: int) -> Path:
    """The n-th output of a run, counted from 0. Raises: RunNotFound."""
    if number >= len(run.outputs):
        raise RunNotFound(f"Output not found: {run.run_id} has {len(run.outputs)} outputs")
    output = run.outputs[number]
    if output.local_path is None:
        raise RunNotFound(f"Output not downloaded: {output.filename} ({output.error or 'not yet'})")
    path = Path(output.local_path)
    if not path.is_file():
        raise RunNotFound(f"Output not found: {output.filename} is not at {path} any more")
    return path


def _idempotency_key() -> str | None:
    """Idempotency key: the first 64 bits of a hash of the header and the body, so that no other order is
    taken for the same. None without the header."""
    given = request.headers.get("Idempotency-Key")
    return sha256(given.encode() + b"\0" + request.get_data()).hexdigest()[:16] if given else None


def _inspection_document(inspection: ValidationResult) -> dict[str, Any]:
    verdict = inspection.verdict
    return {
        "valid": verdict.would_run,
        "errors": [finding.document() for finding in errors(verdict.findings)],
        "warnings": [finding.document() for finding in warnings(verdict.findings)],
        "graph": inspection.graph,
        "key_inputs": [each.document() for each in inspection.key_inputs],
    }


def _given_document(given: Workflow) -> dict[str, Any]:
    """What is known of a workflow without any instance."""
    nodes = given.outline.items()
    return {
        "format": "api" if given.graph else "editor",
        "nodes": [
            {"node_id": node_id, "class_type": node["class_type"], "title": node_title(node)}
            for node_id, node in nodes
        ],
        "key_inputs": [each.document() for each in key_inputs(given.outline, Definitions({}))],
        "needs_instance": not given.graph,
    }


def _pixels(text: str) -> int:
    """`?preview=256`: the longest side. `?preview=` and `?preview=true` mean the usual size."""
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
        body=schemas.RunOrder,
        answer=schemas.RunStarted,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/validate",
        view=OrderViews.validate,
        summary="Ask the instance whether it can run a workflow",
        body=schemas.RunOrder,
        answer=schemas.ValidationResponse,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/inspect",
        view=OrderViews.inspect,
        summary="Look into a workflow, without any instance",
        body=schemas.WorkflowToInspect,
        answer=schemas.InspectResponse,
    ),
)

RUN_OPERATIONS = (
    Operation(
        method="GET",
        rule=f"{PREFIX}/<workflow_id>/progress",
        view=RunViews.progress,
        summary="The progress of a run",
        answer=schemas.ProgressResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<workflow_id>/request",
        view=RunViews.asked,
        summary="What a run was asked for, and the graph that it submits",
        answer=schemas.RequestResponse,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/<workflow_id>/cancel",
        view=RunViews.cancel,
        summary="Cancel a run",
        answer=schemas.Done,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/<workflow_id>/retry",
        view=RunViews.retry,
        summary="Take up a failed run where it failed",
        answer=schemas.Done,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/<workflow_id>/priority",
        view=RunViews.priority,
        summary="Change the priority of a run",
        body=schemas.PriorityChange,
        answer=schemas.Done,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<workflow_id>/active",
        view=RunViews.active,
        summary="Whether a run is still going on",
        answer=schemas.ActiveResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/state",
        view=RunViews.state,
        summary="The progress of the latest run",
        answer=schemas.StateResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/now",
        view=RunViews.underway,
        summary="The runs that execute or wait",
        answer=schemas.NowResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/damage",
        view=RunViews.damage,
        summary="Records on disk that could not be read",
        answer=schemas.DamageResponse,
    ),
)

LIST_OPERATIONS = (
    Operation(
        method="GET",
        rule=PREFIX,
        view=RunList.runs,
        summary="The runs, newest first",
        query=schemas.ListQuery,
        answer=schemas.RunsResponse,
    ),
)

FILE_OPERATIONS = (
    Operation(
        method="GET",
        rule=f"{PREFIX}/<workflow_id>/outputs",
        view=FileViews.outputs,
        summary="The output files of a run",
        answer=schemas.OutputsResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<workflow_id>/outputs.zip",
        view=FileViews.archive,
        summary="All output files of a run in one file",
        answer="application/zip",
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<workflow_id>/outputs/<int:number>",
        view=FileViews.output_file,
        summary="One output file, whole, in ranges or as a small picture",
        query=schemas.PreviewQuery,
        answer="*/*",
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<workflow_id>/live-preview",
        view=FileViews.live_preview,
        summary="The picture that ComfyUI shows of a run just now; 204 for none",
        answer="image/*",
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/files",
        view=FileViews.keep_files,
        summary="Keep a workflow or an image on the server",
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
        description="One workflow on one instance: docs/api/workflow.md",
        operations=(*ORDER_OPERATIONS, *RUN_OPERATIONS, *LIST_OPERATIONS, *FILE_OPERATIONS),
        failure=schemas.Failure,
    ),
)
