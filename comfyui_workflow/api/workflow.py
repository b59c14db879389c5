"""/comfyui/workflow/*: the native API (Workflow Execution API v1.0, and what we add to it)."""

from pathlib import Path
from typing import Any

from flask import Blueprint, Response, jsonify, request

from comfyui_workflow.api import Api, Parts
from comfyui_workflow.api.fields import flag, integer, is_unicode, json_body, number, remote_dir, text
from comfyui_workflow.api.output_files import send_output, send_preview
from comfyui_workflow.api.wording import word_error, word_http_error
from comfyui_workflow.errors import InvalidRequest, RunConflict, RunNotFound
from comfyui_workflow.inspection import Inspection
from comfyui_workflow.instances import usual_places
from comfyui_workflow.instances.address import parse_ssh_address
from comfyui_workflow.journal import now
from comfyui_workflow.local_files import LocalFiles
from comfyui_workflow.runs.document import output_document, progress_document, summary_document
from comfyui_workflow.runs.model import Run, RunRequest, RunStatus, SeedMode
from comfyui_workflow.runs.summary import RunFilter
from comfyui_workflow.settings import Settings
from comfyui_workflow.workflows.definitions import Definitions
from comfyui_workflow.workflows.findings import errors, warnings
from comfyui_workflow.workflows.given import GivenWorkflow, read_given
from comfyui_workflow.workflows.graph import check_json
from comfyui_workflow.workflows.overrides import with_inputs

PREFIX = "/comfyui/workflow"
LARGEST_PAGE = 500


def create_blueprint(parts: Parts) -> Blueprint:
    routes = Blueprint("workflow", __name__, url_prefix=PREFIX)
    service, inspector, files, settings = parts.service, parts.inspector, parts.files, parts.settings

    @routes.post("/execute")
    def execute() -> Response:
        run = service.submit(read_request(json_body(), files, settings))
        return jsonify(success=True, workflow_id=run.workflow_id, message="Workflow execution started")

    @routes.post("/validate")
    def validate() -> Response:
        inspection = inspector.inspect(read_request(json_body(), files, settings))
        return jsonify(success=True, **_inspection_document(inspection))

    @routes.get("/<workflow_id>/progress")
    def progress(workflow_id: str) -> Response:
        return jsonify(success=True, progress=progress_document(service.get(workflow_id), now()))

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

    @routes.get("/<workflow_id>/outputs")
    def outputs(workflow_id: str) -> Response:
        found = service.get(workflow_id).outputs
        return jsonify(success=True, outputs=[output_document(output) for output in found])

    @routes.get("/<workflow_id>/outputs/<int:number>")
    def output_file(workflow_id: str, number: int) -> Response:
        path = local_output(service.get(workflow_id), number)
        size = request.args.get("preview")
        return send_output(path) if size is None else send_preview(path, _pixels(size))

    @routes.get("/state")
    def state() -> Response:
        run = service.latest()
        return jsonify(success=True, state=progress_document(run, now()) if run else None)

    @routes.get("/<workflow_id>/active")
    def active(workflow_id: str) -> Response:
        try:
            is_active = not service.get(workflow_id).is_finished
        except RunNotFound:
            is_active = False
        return jsonify(success=True, active=is_active)

    @routes.get("")
    def runs() -> Response:
        limit = number(request.args.get("limit", "50"), "limit", 1, LARGEST_PAGE)
        wanted = _wanted()
        page = service.summaries(limit, request.args.get("before"), wanted)
        at = now()
        return jsonify(
            success=True,
            workflows=[summary_document(summary, at) for summary in page],
            total=service.count(wanted),
            next=page[-1].workflow_id if len(page) == limit else None,
        )

    @routes.post("/files")
    def keep_files() -> Response:
        uploads = [upload for upload in request.files.values() if upload.filename]
        if not uploads:
            raise InvalidRequest('Send the file as multipart/form-data, in a field called "file"')
        kept = [files.keep_upload(upload.stream, upload.filename or "") for upload in uploads]
        named = [{"path": str(path), "filename": path.name} for path in kept]
        return jsonify(success=True, path=named[0]["path"], files=named)

    return routes


def read_request(body: dict[str, Any], files: LocalFiles, settings: Settings) -> RunRequest:
    """The body of `execute`, with the defaults of the specification. Raises: InvalidRequest."""
    if not body:
        raise InvalidRequest("Request body is required")
    ssh_connection = text(body, "ssh_connection")
    if not ssh_connection:
        raise InvalidRequest("ssh_connection is required")
    workflow_file, given = _workflow(body, files)
    inputs = _inputs(body, given)
    address = parse_ssh_address(ssh_connection)
    default_port = address.comfyui_port or usual_places.COMFYUI_PORT
    default_name = Path(workflow_file).name if workflow_file else "workflow"
    return RunRequest(
        ssh_connection=ssh_connection,
        workflow_file=workflow_file,
        graph=given.graph,
        editor_file=given.editor_file,
        inputs=inputs,
        seed_mode=_seed_mode(body),
        workflow_name=text(body, "workflow_name") or default_name,
        input_images=_images(body, files),
        output_dir=files.output_dir(text(body, "output_dir") or str(settings.default_output_dir)),
        comfyui_port=integer(body, "comfyui_port", default_port, 1, 65535),
        comfyui_input_dir=remote_dir(body, "comfyui_input_dir", usual_places.INPUT_DIR),
        comfyui_output_dir=remote_dir(body, "comfyui_output_dir", usual_places.OUTPUT_DIR),
        include_previews=flag(body, "include_previews"),
    )


def local_output(run: Run, number: int) -> Path:
    """The n-th output of a run, counted from 0. Raises: RunNotFound."""
    if number >= len(run.outputs):
        raise RunNotFound(f"Output not found: {run.workflow_id} has {len(run.outputs)} outputs")
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


def _wanted() -> RunFilter:
    """Of the query; what is empty there is not asked for."""
    return RunFilter(
        statuses=_statuses(request.args.get("status") or ""),
        name_contains=request.args.get("name") or None,
        instance=request.args.get("instance") or None,
        batch_id=request.args.get("batch") or None,
    )


def _statuses(given: str) -> frozenset[RunStatus]:
    """`?status=failed,cancelled`."""
    try:
        return frozenset(RunStatus(word.strip()) for word in given.split(",")) if given else frozenset()
    except ValueError as error:
        raise InvalidRequest(
            f"status must be one or several of {', '.join(RunStatus)}, with commas between them"
        ) from error


def _inspection_document(inspection: Inspection) -> dict[str, Any]:
    verdict = inspection.verdict
    return {
        "valid": verdict.would_run,
        "errors": [finding.document() for finding in errors(verdict.findings)],
        "warnings": [finding.document() for finding in warnings(verdict.findings)],
        "graph": inspection.graph,
    }


def _workflow(body: dict[str, Any], files: LocalFiles) -> tuple[str | None, GivenWorkflow]:
    """A path, or the workflow itself, in either format; the path is kept as it was given."""
    workflow_file = text(body, "workflow_file")
    inline = body.get("workflow")
    if workflow_file and inline is not None:
        raise InvalidRequest("Give workflow_file or workflow, not both")
    if inline is not None:
        return None, read_given(inline)
    if not workflow_file:
        raise InvalidRequest("workflow_file is required")
    return workflow_file, files.read_workflow(workflow_file)


def _inputs(body: dict[str, Any], given: GivenWorkflow) -> dict[str, Any]:
    """Names that the workflow has not got are told at once; what the instance allows, it is asked."""
    inputs = body.get("inputs")
    if inputs is None:
        return {}
    if not isinstance(inputs, dict):
        raise InvalidRequest('inputs must be an object: {"<node id or title>.<input>": value}')
    check_json(inputs)
    with_inputs(given.outline, inputs, Definitions({}))
    return inputs


def _seed_mode(body: dict[str, Any]) -> SeedMode:
    mode = text(body, "seed_mode") or SeedMode.SAVED.value
    try:
        return SeedMode(mode)
    except ValueError as error:
        raise InvalidRequest(f"seed_mode must be one of {', '.join(SeedMode)}") from error


def _images(body: dict[str, Any], files: LocalFiles) -> tuple[str, ...]:
    images = body.get("input_images")
    if images is None:
        return ()
    if not isinstance(images, list) or not all(
        isinstance(image, str) and is_unicode(image) for image in images
    ):
        raise InvalidRequest("input_images must be a list of file paths")
    paths = tuple(dict.fromkeys(files.input_image(image) for image in images))
    names = [Path(path).name for path in paths]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidRequest(
            f"input_images has two different files called {twice}; ComfyUI knows them by name"
        )
    return paths


def _pixels(text: str) -> int:
    """`?preview=256`: the longest side. `?preview=` and `?preview=true` mean the usual size."""
    return 256 if text in ("", "1", "true") else number(text, "preview", 16, 2048)
