"""/comfyui/workflow/batch: many runs in one request."""

from typing import Any

from flask import Blueprint, Response, jsonify, request

from comfyui_workflow.api.archives import send_archive
from comfyui_workflow.api.error_responses import word_error, word_http_error
from comfyui_workflow.api.mount import Api, Parts
from comfyui_workflow.api.native.run_documents import RunDocuments
from comfyui_workflow.api.request import json_body, number
from comfyui_workflow.api.response_cache import shared_answers
from comfyui_workflow.api.run_requests import order_reader
from comfyui_workflow.errors import BatchNotFound
from comfyui_workflow.runs.batch import BatchProgress
from comfyui_workflow.runs.document import batch_document, output_document
from comfyui_workflow.runs.summary import RunSummary
from comfyui_workflow.stores.journal import now

PREFIX = "/comfyui/workflow/batch"
LARGEST_PAGE = 100
MOST_FAILURES_SHOWN = 20


def create_blueprint(parts: Parts) -> Blueprint:
    routes = Blueprint("batches", __name__, url_prefix=PREFIX)
    batches, service = parts.batches, parts.service
    orders = order_reader(parts)
    documents = RunDocuments(service=service, live_view=parts.live_view)
    answers = shared_answers(routes, lambda: service.turning_points)

    @routes.post("")
    def submit() -> Response:
        batch = batches.submit(orders.read_batch(json_body()))
        ids = [run.run_id for run in batches.runs(batch.batch_id)]
        return jsonify(
            success=True, batch_id=batch.batch_id, workflow_ids=ids, message=f"{len(ids)} runs are queued"
        )

    @routes.get("")
    def some() -> Response:
        return answers.answer(request.full_path, page)

    def page() -> Response:
        limit = number(request.args.get("limit", "20"), "limit", 1, LARGEST_PAGE)
        found = batches.page(limit, request.args.get("before"))
        return jsonify(
            success=True,
            batches=[progress_document(each) for each in found],
            next=found[-1].batch.batch_id if len(found) == limit else None,
        )

    @routes.get("/<batch_id>/progress")
    def progress(batch_id: str) -> Response:
        return answers.answer(
            request.path,
            lambda: jsonify(success=True, progress=progress_document(batches.progress(batch_id))),
        )

    @routes.post("/<batch_id>/cancel")
    def cancel(batch_id: str) -> Response:
        cancelled = batches.cancel(batch_id)
        return jsonify(success=True, cancelled=cancelled, message="Batch cancellation initiated")

    @routes.post("/<batch_id>/retry")
    def retry(batch_id: str) -> Response:
        retried = batches.retry(batch_id)
        return jsonify(success=True, retried=retried, message="Batch retry started")

    @routes.get("/<batch_id>/outputs")
    def outputs(batch_id: str) -> Response:
        found = [run.run_id for run in batches.runs(batch_id) if run.output_count]
        return jsonify(
            success=True,
            outputs=[
                {"workflow_id": workflow_id, "number": at, **output_document(output)}
                for workflow_id in found
                for at, output in enumerate(service.outputs(workflow_id))
            ],
        )

    @routes.get("/<batch_id>/outputs.zip")
    def archive(batch_id: str) -> Response:
        found = [run.run_id for run in batches.runs(batch_id) if run.output_count]
        name = batches.progress(batch_id).batch.name
        sent = send_archive((output for each in found for output in service.outputs(each)), name)
        if sent is None:
            raise BatchNotFound(f"No output of the batch is here: {batch_id}")
        return sent

    @routes.get("/<batch_id>/summary")
    def summary(batch_id: str) -> Response:
        at = now()
        lines = [
            {
                **documents.line(run, at),
                "inputs": dict(service.inputs(run.run_id)),
            }
            for run in batches.runs(batch_id)
        ]
        return jsonify(success=True, batch=progress_document(batches.progress(batch_id)), workflows=lines)

    return routes


def progress_document(progress: BatchProgress) -> dict[str, Any]:
    batch = progress.batch
    return {
        **batch_document(progress),
        "stagger_s": batch.stagger_s,
        "on_error": batch.on_error.value,
        "failures": [_failure(run) for run in progress.failures[:MOST_FAILURES_SHOWN]],
    }


API = Api(
    prefix=PREFIX,
    create_blueprint=create_blueprint,
    word_error=word_error,
    word_http_error=word_http_error,
)


def _failure(run: RunSummary) -> dict[str, Any]:
    return {
        "workflow_id": run.run_id,
        "error_message": run.error_message,
        "error_code": run.error_code,
        "failed_node_id": run.failed_node_id,
    }
