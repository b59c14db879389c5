"""/comfyui/workflow/batch: many runs in one request."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, jsonify, request

from comfyui_workflow.api.archives import send_archive
from comfyui_workflow.api.error_responses import error_response, http_error_response
from comfyui_workflow.api.mount import Api, ApiServices
from comfyui_workflow.api.native import schemas
from comfyui_workflow.api.native.run_documents import RunDocuments
from comfyui_workflow.api.operations import Operation, Section, register
from comfyui_workflow.api.request import idempotency_key, json_body, number, refuse_unknown_parts
from comfyui_workflow.api.response_cache import ResponseCache, create_response_cache
from comfyui_workflow.api.run_requests import OrderReader, order_reader
from comfyui_workflow.errors import BatchNotFound
from comfyui_workflow.runs.batch import BatchNotice, BatchProgress
from comfyui_workflow.runs.document import batch_document, output_document
from comfyui_workflow.runs.model import OutputFile
from comfyui_workflow.runs.summary import RunSummary
from comfyui_workflow.services.batches import BatchService
from comfyui_workflow.services.notifications import RunNotifier
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.stores.journal import now

PREFIX = "/comfyui/workflow/batch"
MAX_FAILURES_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class BatchViews:
    batches: BatchService
    service: RunService
    orders: OrderReader
    documents: RunDocuments
    cache: ResponseCache
    notifier: RunNotifier

    def submit(self) -> Response:
        key = idempotency_key()
        batch = self.batches.submitted_before(key) or self.batches.submit(
            self.orders.read_batch(json_body()), key
        )
        ids = [run.run_id for run in self.batches.runs(batch.batch_id)]
        return jsonify(
            success=True, batch_id=batch.batch_id, workflow_ids=ids, message=f"{len(ids)} runs are queued"
        )

    def list_batches(self) -> Response:
        return self.cache.response_of(request.full_path, self._page)

    def progress(self, batch_id: str) -> Response:
        def make() -> Response:
            return jsonify(success=True, progress=self._document(self.batches.progress(batch_id)))

        return self.cache.response_of(request.path, make)

    def cancel(self, batch_id: str) -> Response:
        cancelled = self.batches.cancel(batch_id)
        return jsonify(success=True, cancelled=cancelled, message="Batch cancellation initiated")

    def retry(self, batch_id: str) -> Response:
        retried = self.batches.retry(batch_id)
        return jsonify(success=True, retried=retried, message="Batch retry started")

    def outputs(self, batch_id: str) -> Response:
        outputs = [
            {"workflow_id": run_id, "number": at, **output_document(output)}
            for run_id, at, output in self._outputs(batch_id)
        ]
        return jsonify(success=True, outputs=outputs)

    def archive(self, batch_id: str) -> Response:
        outputs = [output for _, _, output in self._outputs(batch_id)]
        sent = send_archive(outputs, self.batches.progress(batch_id).batch.name)
        if sent is None:
            raise BatchNotFound(f"No output of the batch is on the server: {batch_id}")
        return sent

    def summary(self, batch_id: str) -> Response:
        at = now()
        lines = [
            {**self.documents.line(run, at), "inputs": dict(self.service.inputs(run.run_id))}
            for run in self.batches.runs(batch_id)
        ]
        batch = self._document(self.batches.progress(batch_id))
        return jsonify(success=True, batch=batch, workflows=lines)

    def _page(self) -> Response:
        limit = number(request.args.get("limit", "20"), "limit", 1, schemas.LARGEST_BATCH_PAGE)
        found = self.batches.page(limit, request.args.get("before"))
        return jsonify(
            success=True,
            batches=[self._document(each) for each in found],
            next=found[-1].batch.batch_id if len(found) == limit else None,
        )

    def _document(self, progress: BatchProgress) -> dict[str, Any]:
        return {**progress_document(progress), "webhook": self.notifier.of_batch(progress)}

    def _outputs(self, batch_id: str) -> Iterator[tuple[str, int, OutputFile]]:
        """Yields (run id, number of the output, output) for every output of the batch. Raises:
        BatchNotFound."""
        found = [run.run_id for run in self.batches.runs(batch_id) if run.output_count]
        for run_id in found:
            for at, output in enumerate(self.service.outputs(run_id)):
                yield run_id, at, output


def create_blueprint(services: ApiServices) -> Blueprint:
    routes = Blueprint("batches", __name__)
    views = BatchViews(
        batches=services.batches,
        service=services.service,
        orders=order_reader(services),
        documents=RunDocuments(
            service=services.service, live_view=services.live_view, notifier=services.notifier
        ),
        notifier=services.notifier,
        cache=create_response_cache(routes, lambda: services.service.status_version),
    )
    register(routes, OPERATIONS, views, refuse_unknown_parts)
    return routes


def progress_document(progress: BatchProgress) -> dict[str, Any]:
    batch = progress.batch
    return {
        **batch_document(progress),
        "stagger_s": batch.stagger_s,
        "on_error": batch.on_error.value,
        "failures": [_failure(run) for run in progress.failures[:MAX_FAILURES_SHOWN]],
        "notices": [_notice(notice) for notice in progress.notices],
    }


def _notice(notice: BatchNotice) -> dict[str, Any]:
    return {"message": notice.message, "workflow_ids": list(notice.run_ids), "count": notice.count}


def _failure(run: RunSummary) -> dict[str, Any]:
    return {
        "workflow_id": run.run_id,
        "error_message": run.error_message,
        "error_code": run.error_code,
        "failed_node_id": run.failed_node_id,
    }


OPERATIONS = (
    Operation(
        method="POST",
        rule=PREFIX,
        view=BatchViews.submit,
        summary="Start a batch of runs",
        description="Stores all runs or none, and returns as soon as they are stored. Errors: 400 if "
        "any run is invalid (the message has its number), 507 local disk full. With a header "
        "`Idempotency-Key`, a repeated request with the same body returns the existing batch.",
        body=schemas.BatchBody,
        answer=schemas.BatchStarted,
    ),
    Operation(
        method="GET",
        rule=PREFIX,
        view=BatchViews.list_batches,
        summary="List batches, newest first",
        query=schemas.BatchQuery,
        answer=schemas.BatchesResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<batch_id>/progress",
        view=BatchViews.progress,
        summary="Get the progress of a batch",
        description="Errors: 404 `batch_not_found`.",
        answer=schemas.BatchProgressResponse,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/<batch_id>/cancel",
        view=BatchViews.cancel,
        summary="Cancel all unfinished runs of a batch",
        description="When this returns, no run of the batch starts any more; runs on an instance may "
        "take a few seconds to end. Errors: 404 `batch_not_found`, 409 all runs are finished.",
        answer=schemas.BatchCancelled,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/<batch_id>/retry",
        view=BatchViews.retry,
        summary="Retry the failed runs of a batch",
        description="Each run resumes at the step that failed, like `retry` of a run. "
        "Errors: 404 `batch_not_found`, 409 no run can be retried.",
        answer=schemas.BatchRetried,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<batch_id>/outputs",
        view=BatchViews.outputs,
        summary="List the output files of a batch",
        description="Errors: 404 `batch_not_found`.",
        answer=schemas.BatchOutputsResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<batch_id>/outputs.zip",
        view=BatchViews.archive,
        summary="Download all output files of a batch as one ZIP",
        description="Not compressed. Files that are not on the server are left out. Errors: 404 no "
        "output is on the server, 503 four archives are being sent.",
        answer="application/zip",
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<batch_id>/summary",
        view=BatchViews.summary,
        summary="Get a batch and all its runs, with the inputs that were set",
        description="Errors: 404 `batch_not_found`.",
        answer=schemas.BatchSummaryResponse,
    ),
)

API = Api(
    prefix=PREFIX,
    create_blueprint=create_blueprint,
    error_response=error_response,
    http_error_response=http_error_response,
    section=Section(
        tag="Batches",
        description="Many runs in one request. Details: docs/api/batch.md",
        operations=OPERATIONS,
        failure=schemas.Failure,
        path_parameters={"batch_id": "Id of the batch"},
    ),
)
