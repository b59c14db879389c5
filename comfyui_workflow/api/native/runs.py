"""/comfyui/workflow/*: the native API (Workflow Execution API v1.0, and what we add to it)."""

from hashlib import sha256
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, jsonify, request

from comfyui_workflow.api.archives import send_archive
from comfyui_workflow.api.error_responses import word_error, word_http_error
from comfyui_workflow.api.files import send_live_preview, send_output, send_preview
from comfyui_workflow.api.mount import Api, Parts
from comfyui_workflow.api.native.rerun import (
    body_again,
    graph_of_run,
    run_meant,
    with_changes,
    workflow_of,
)
from comfyui_workflow.api.native.run_documents import RunDocuments
from comfyui_workflow.api.native.run_list import add_list
from comfyui_workflow.api.request import json_body, number
from comfyui_workflow.api.response_cache import shared_answers
from comfyui_workflow.api.run_requests import order_reader, read_priority
from comfyui_workflow.errors import InvalidRequest, RunConflict, RunNotFound
from comfyui_workflow.runs.document import output_document
from comfyui_workflow.runs.model import Run
from comfyui_workflow.runs.summary import summary_of
from comfyui_workflow.services.validation import Inspection
from comfyui_workflow.stores.damage import damage_document
from comfyui_workflow.stores.journal import now
from comfyui_workflow.workflows.editable_inputs import key_inputs
from comfyui_workflow.workflows.findings import errors, warnings
from comfyui_workflow.workflows.graph import node_title
from comfyui_workflow.workflows.input_formats import GivenWorkflow
from comfyui_workflow.workflows.node_definitions import Definitions

PREFIX = "/comfyui/workflow"


def create_blueprint(parts: Parts) -> Blueprint:
    routes = Blueprint("workflow", __name__, url_prefix=PREFIX)
    service, inspector = parts.service, parts.inspector
    orders = order_reader(parts)
    documents = RunDocuments(service=service, live_view=parts.live_view)
    answers = shared_answers(routes, lambda: service.turning_points)

    def body_of_order() -> dict[str, Any]:
        body = json_body()
        again = run_meant(body)
        if again is None:
            return body
        return with_changes(body_again(service.get(again).request, parts.instances.directory), body)

    @routes.post("/execute")
    def execute() -> Response:
        run = service.submit(orders.read(body_of_order()), _order_key())
        return jsonify(success=True, workflow_id=run.run_id, message="Workflow execution started")

    @routes.post("/validate")
    def validate() -> Response:
        asked, instance = orders.read_placed(body_of_order())
        inspection = inspector.inspect(asked, host_key=instance.host_key if instance else None)
        return jsonify(
            success=True, **_inspection_document(inspection), instance=instance.name if instance else None
        )

    @routes.post("/inspect")
    def inspect() -> Response:
        body = json_body()
        again = run_meant(body)
        given = body if again is None else {"workflow": workflow_of(service.get(again))}
        return jsonify(success=True, **_given_document(orders.read_workflow(given)))

    @routes.get("/<workflow_id>/progress")
    def progress(workflow_id: str) -> Response:
        return jsonify(success=True, progress=documents.progress(service.get(workflow_id)))

    @routes.get("/<workflow_id>/request")
    def asked(workflow_id: str) -> Response:
        run = service.get(workflow_id)
        body = body_again(run.request, parts.instances.directory)
        return jsonify(success=True, request=body, graph=graph_of_run(run))

    @routes.post("/<workflow_id>/cancel")
    def cancel(workflow_id: str) -> Response:
        try:
            service.cancel(workflow_id)
        except (RunNotFound, RunConflict) as error:
            raise RunNotFound(f"Workflow not found or already completed: {workflow_id}") from error
        return jsonify(success=True, message="Workflow cancellation initiated")

    @routes.post("/<workflow_id>/retry")
    def retry(workflow_id: str) -> Response:
        service.retry(workflow_id)
        return jsonify(success=True, message="Workflow retry started")

    @routes.post("/<workflow_id>/priority")
    def priority(workflow_id: str) -> Response:
        service.prioritize(workflow_id, read_priority(json_body()))
        return jsonify(success=True, message="Priority changed")

    @routes.get("/state")
    def state() -> Response:
        run = service.latest()
        return jsonify(success=True, state=documents.progress(run) if run else None)

    @routes.get("/damage")
    def damage() -> Response:
        """What of the records on disk could not be read since the server was started."""
        return jsonify(success=True, damage=[damage_document(each) for each in parts.damage.all()])

    @routes.get("/now")
    def underway() -> Response:
        return answers.answer(request.path, now_document)

    def now_document() -> Response:
        turning_points, found, at = service.turning_points, service.underway(), now()

        def lines(runs: tuple[Run, ...]) -> list[dict[str, Any]]:
            return [documents.line(summary_of(run), at) for run in runs]

        return jsonify(
            success=True,
            executing=lines(found.executing),
            waiting=lines(found.waiting),
            counts={"executing": found.executing_count, "queued": found.waiting_count},
            version=turning_points,
        )

    @routes.get("/<workflow_id>/active")
    def active(workflow_id: str) -> Response:
        try:
            is_active = not service.get(workflow_id).is_finished
        except RunNotFound:
            is_active = False
        return jsonify(success=True, active=is_active)

    add_list(routes, parts, answers)
    _add_files(routes, parts)
    return routes


def _add_files(routes: Blueprint, parts: Parts) -> None:
    """What is not JSON: the files of a run, its live preview, and files that are sent here."""
    service = parts.service

    @routes.get("/<workflow_id>/outputs")
    def outputs(workflow_id: str) -> Response:
        found = service.get(workflow_id).outputs
        return jsonify(success=True, outputs=[output_document(output) for output in found])

    @routes.get("/<workflow_id>/outputs.zip")
    def archive(workflow_id: str) -> Response:
        run = service.get(workflow_id)
        sent = send_archive(run.outputs, run.request.workflow_name)
        if sent is None:
            raise RunNotFound(f"No output of {workflow_id} is here")
        return sent

    @routes.get("/<workflow_id>/outputs/<int:number>")
    def output_file(workflow_id: str, number: int) -> Response:
        path = local_output(service.get(workflow_id), number)
        size = request.args.get("preview")
        return send_output(path) if size is None else send_preview(path, _pixels(size))

    @routes.get("/<workflow_id>/live-preview")
    def live_preview(workflow_id: str) -> Response:
        run = service.get(workflow_id)
        live = parts.live_view.preview(workflow_id)
        if live is None or run.is_finished:
            return Response(status=204)  # no failure: whoever was told of one asks a moment too late
        return send_live_preview(live.preview.picture, live.preview.content_type)

    @routes.post("/files")
    def keep_files() -> Response:
        uploads = [upload for upload in request.files.values() if upload.filename]
        if not uploads:
            raise InvalidRequest('Send the file as multipart/form-data, in a field called "file"')
        kept = [parts.uploads.keep(upload.stream, upload.filename or "") for upload in uploads]
        named = [{"path": str(path), "filename": path.name} for path in kept]
        return jsonify(success=True, path=named[0]["path"], files=named)


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


API = Api(
    prefix="/comfyui",
    create_blueprint=create_blueprint,
    word_error=word_error,
    word_http_error=word_http_error,
)


def _order_key() -> str | None:
    """Of a client that may ask once more, since it has not heard the answer. With the body, so that no other
    order is taken for the same."""
    given = request.headers.get("Idempotency-Key")
    return sha256(given.encode() + b"\0" + request.get_data()).hexdigest()[:16] if given else None


def _inspection_document(inspection: Inspection) -> dict[str, Any]:
    verdict = inspection.verdict
    return {
        "valid": verdict.would_run,
        "errors": [finding.document() for finding in errors(verdict.findings)],
        "warnings": [finding.document() for finding in warnings(verdict.findings)],
        "graph": inspection.graph,
        "key_inputs": [each.document() for each in inspection.key_inputs],
    }


def _given_document(given: GivenWorkflow) -> dict[str, Any]:
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
    return 256 if text in ("", "1", "true") else number(text, "preview", 16, 2048)
