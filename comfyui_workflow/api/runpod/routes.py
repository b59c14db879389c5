"""/v2/<endpoint_id>/* and the same routes without prefix: jobs, compatible with RunPod and worker-comfyui."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from threading import BoundedSemaphore

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from comfyui_workflow.api.error_responses import keep_headers, status_of
from comfyui_workflow.api.mount import Api, ApiServices
from comfyui_workflow.api.operations import Operation, Section, register
from comfyui_workflow.api.request import idempotency_key, json_body, number
from comfyui_workflow.api.runpod import schemas
from comfyui_workflow.api.runpod.documents import NO_IMAGES, STATUS_WORDS, document_head
from comfyui_workflow.api.runpod.misspellings import refuse_misspelled_query
from comfyui_workflow.api.runpod.output import spooled_document, spooled_stream
from comfyui_workflow.api.runpod.rate_limits import RateLimits
from comfyui_workflow.api.runpod.requests import JobOrderReader, job_order_reader
from comfyui_workflow.api.spooled_json import spooled_response
from comfyui_workflow.errors import RunConflict, WorkflowError
from comfyui_workflow.instances.services import InstanceServices
from comfyui_workflow.instances.state import InstanceState, Reachability
from comfyui_workflow.runs.job import JobStatus
from comfyui_workflow.runs.target import read_any
from comfyui_workflow.server.body_limits import BodyLimit
from comfyui_workflow.services.jobs.service import ImageRefused, JobNotRetryable, JobService
from comfyui_workflow.services.jobs.view import JobView, has_output, output_of
from comfyui_workflow.stores.journal import now

PREFIX = "/v2"
BARE = ("/run", "/runsync", "/status", "/status-sync", "/stream", "/cancel", "/retry", "/purge-queue")
MAX_WAITING = 6
"""Maximum number of requests that wait for a job at once. Each occupies a thread of the server, and most
threads must remain for other requests."""

MB = 1024 * 1024
LARGEST_BODIES_MB = {"run": 10, "runsync": 20}


@dataclass(frozen=True, kw_only=True)
class JobViews:
    """Each route has two paths; on the one without prefix, `endpoint_id` is None."""

    jobs: JobService
    orders: JobOrderReader
    instances: InstanceServices
    limits: RateLimits
    waiting: BoundedSemaphore
    default_endpoint: str
    spool_dir: Path
    """Directory for temporary files of responses that are too large for memory."""

    def run(self, endpoint_id: str | None) -> Response:
        self._check_rate("run", endpoint_id)
        return _status_response(self._submitted(endpoint_id, is_sync=False))

    def runsync(self, endpoint_id: str | None) -> Response:
        self._check_rate("runsync", endpoint_id)
        _wait_ms()  # refuse an invalid value before the job is submitted
        return self._document(self._wait_for(self._submitted(endpoint_id, is_sync=True)))

    def status(self, endpoint_id: str | None, job_id: str) -> Response:
        self._check_rate("status", endpoint_id)
        return self._document(self.jobs.get(job_id))

    def status_sync(self, endpoint_id: str | None, job_id: str) -> Response:
        self._check_rate("status-sync", endpoint_id)
        return self._document(self._wait_for(self.jobs.get(job_id)))

    def stream(self, endpoint_id: str | None, job_id: str) -> Response:
        self._check_rate("stream", endpoint_id)
        take = self.jobs.outputs_left if request.method == "HEAD" else self.jobs.take_outputs
        view, files = take(job_id)
        return spooled_response(spooled_stream(document_head(view, now()), files, self.spool_dir))

    def cancel(self, endpoint_id: str | None, job_id: str) -> Response:
        self._check_rate("cancel", endpoint_id)
        return _status_response(self.jobs.cancel(job_id))

    def retry(self, endpoint_id: str | None, job_id: str) -> Response:
        self._check_rate("retry", endpoint_id)
        try:
            self.jobs.retry(job_id)
        except JobNotRetryable as error:
            raise RunConflict(
                "Only a job that has failed or timed out can be retried: "
                f"this one is {STATUS_WORDS[error.status]}"
            ) from error
        return jsonify(id=job_id, status=STATUS_WORDS[JobStatus.QUEUED])

    def purge_queue(self, endpoint_id: str | None) -> Response:
        self._check_rate("purge-queue", endpoint_id)
        removed = self.jobs.purge(self.orders.endpoint(endpoint_id).key)
        return jsonify(removed=removed, status="completed")

    def health(self, endpoint_id: str) -> Response:
        key = self.orders.endpoint(endpoint_id).key
        return jsonify(jobs=_job_counts(self.jobs, key), workers=_worker_counts(self.instances, key))

    def _check_rate(self, operation: str, endpoint_id: str | None) -> None:
        """Raises: TooManyRequests."""
        self.limits.check(operation, (endpoint_id or self.default_endpoint).lower())

    def _submitted(self, endpoint_id: str | None, *, is_sync: bool) -> JobView:
        endpoint = self.orders.endpoint(endpoint_id)
        key = idempotency_key(f" {endpoint.key} {is_sync}")
        before = self.jobs.submitted_before(key)
        if before is not None:
            return before
        order = self.orders.read(json_body(), endpoint, is_sync=is_sync)
        try:
            return self.jobs.submit(order, key)
        except ImageRefused as error:
            return self.jobs.submit(replace(order, fetches=(), refusal=f"{NO_IMAGES}: {error}"))

    def _wait_for(self, view: JobView) -> JobView:
        """Waits until the job is final or the wait time is over, and returns it. Does not wait for HEAD, or
        if `MAX_WAITING` requests already wait."""
        wait_ms = _wait_ms()
        if view.job.final is None and request.method != "HEAD" and self.waiting.acquire(blocking=False):
            try:
                return self.jobs.wait(view.job.job_id, wait_ms / 1000)
            finally:
                self.waiting.release()
        return self.jobs.get(view.job.job_id)

    def _document(self, view: JobView) -> Response:
        head = document_head(view, now())
        if not has_output(view):
            return jsonify(head)
        return spooled_response(spooled_document(head, output_of(view), self.spool_dir))


def create_blueprint(services: ApiServices) -> Blueprint:
    routes = Blueprint("worker_comfyui", __name__)
    views = JobViews(
        jobs=services.jobs,
        orders=job_order_reader(services),
        instances=services.instances,
        limits=RateLimits(enabled=services.settings.rate_limits),
        waiting=BoundedSemaphore(MAX_WAITING),
        default_endpoint=services.settings.default_endpoint,
        spool_dir=services.settings.data_dir,
    )
    register(routes, OPERATIONS, views, refuse_misspelled_query)
    return routes


def body_limit(path: str) -> BodyLimit | None:
    """Returns RunPod's limit for the body of a path; called before the body is read."""
    found = re.fullmatch(rf"({PREFIX}/[^/]+)?/(?P<operation>run|runsync)", path)
    if found is None:
        return None
    max_mb = LARGEST_BODIES_MB[found["operation"]]
    return BodyLimit(
        most_bytes=max_mb * MB,
        message=f"Request body is larger than {max_mb} MB, the most that /{found['operation']} takes: "
        "send large images as URLs",
    )


def error_response(error: WorkflowError) -> Response:
    return _failure(str(error), status_of(error))


def http_error_response(error: HTTPException) -> Response:
    response = _failure(error.description or error.name, error.code or 500)
    keep_headers(error, response)
    return response


def _status_response(view: JobView) -> Response:
    return jsonify(id=view.job.job_id, status=STATUS_WORDS[view.status])


def _failure(message: str, status: int) -> Response:
    response = jsonify(error=message)
    response.status_code = status
    return response


def _wait_ms() -> int:
    given = request.args.get("wait")
    if not given:
        return schemas.USUAL_WAIT_MS
    return number(given, "wait", schemas.LEAST_WAIT_MS, schemas.LONGEST_WAIT_MS)


def _job_counts(jobs: JobService, endpoint: str) -> dict[str, int]:
    counted = jobs.counts(endpoint)
    failed = counted.get(JobStatus.FAILED, 0) + counted.get(JobStatus.TIMEOUT, 0)
    return {
        "completed": counted.get(JobStatus.SUCCEEDED, 0),
        "failed": failed,
        "inProgress": counted.get(JobStatus.RUNNING, 0),
        "inQueue": counted.get(JobStatus.QUEUED, 0),
        "retried": counted.get("retried", 0),
    }


def _worker_counts(instances: InstanceServices, endpoint: str) -> dict[str, int]:
    """Counts the instances of an endpoint as workers: `initializing` while not known to be ready, `throttled`
    while unreachable."""
    any_target = read_any(endpoint)
    counted = dict.fromkeys(("idle", "initializing", "ready", "running", "throttled"), 0)
    for instance in instances.directory.all():
        if instance.is_eligible_for(any_target.tag) if any_target else instance.id == endpoint:
            counted[_worker_state(instances.monitors.state(instance.id))] += 1
    counted["ready"] = counted["idle"]
    return counted


def _worker_state(state: InstanceState) -> str:
    if state.reachability is Reachability.UNREACHABLE:
        return "throttled"
    if not state.is_ready:
        return "initializing"
    return "running" if state.prompts is not None and state.prompts.is_busy else "idle"


_READS = (
    Operation(
        method="GET",
        rule=f"{PREFIX}/<endpoint_id>/status/<job_id>",
        has_bare_rule=True,
        view=JobViews.status,
        summary="Get the status and the output of a job",
        description="Errors: 404 unknown or expired job.",
        answer=schemas.JobResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<endpoint_id>/status-sync/<job_id>",
        has_bare_rule=True,
        view=JobViews.status_sync,
        summary="Wait for a job",
        description="Returns the unfinished job if the wait time is over, or if six other requests are "
        "waiting. Errors: 404 unknown or expired job.",
        query=schemas.WaitQuery,
        answer=schemas.JobResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<endpoint_id>/stream/<job_id>",
        has_bare_rule=True,
        view=JobViews.stream,
        summary="Get the outputs of a job once",
        description="Returns all outputs when the job is done, and none to later requests. Errors: 404 "
        "unknown or expired job.",
        answer=schemas.StreamResponse,
    ),
)

OPERATIONS = (
    Operation(
        method="POST",
        rule=f"{PREFIX}/<endpoint_id>/run",
        has_bare_rule=True,
        view=JobViews.run,
        summary="Start a job",
        description="Returns as soon as the job is stored. A job with an invalid `input` is accepted and "
        "fails. Errors: 400 other invalid field, 404 unknown endpoint, 413 body over 10 MB, 429 rate limit.",
        body=schemas.JobBody,
        answer=schemas.JobStatusResponse,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/<endpoint_id>/runsync",
        has_bare_rule=True,
        view=JobViews.runsync,
        summary="Start a job and wait for it",
        description="Returns the unfinished job if the wait time is over, or if six other requests are "
        "waiting. Errors: as for `run`; 413 body over 20 MB.",
        body=schemas.JobBody,
        query=schemas.WaitQuery,
        answer=schemas.JobResponse,
    ),
    *_READS,
    *(replace(each, method="POST") for each in _READS),  # RunPod accepts both
    Operation(
        method="POST",
        rule=f"{PREFIX}/<endpoint_id>/cancel/<job_id>",
        has_bare_rule=True,
        view=JobViews.cancel,
        summary="Cancel a job",
        description="Errors: 404 unknown or expired job.",
        answer=schemas.JobStatusResponse,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/<endpoint_id>/retry/<job_id>",
        has_bare_rule=True,
        view=JobViews.retry,
        summary="Retry a job that has failed or timed out",
        description="Keeps the job id. Errors: 404 unknown or expired job, 409 the job has another status.",
        answer=schemas.JobStatusResponse,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/<endpoint_id>/purge-queue",
        has_bare_rule=True,
        view=JobViews.purge_queue,
        summary="Cancel the waiting jobs of an endpoint",
        description="Errors: 404 unknown endpoint.",
        answer=schemas.QueuePurged,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<endpoint_id>/health",
        view=JobViews.health,
        summary="Count the jobs and workers of an endpoint",
        description="A worker is an instance. Errors: 404 unknown endpoint.",
        answer=schemas.EndpointHealth,
    ),
)

API = Api(
    prefix=PREFIX,
    other_prefixes=BARE,
    create_blueprint=create_blueprint,
    error_response=error_response,
    http_error_response=http_error_response,
    body_limit=body_limit,
    section=Section(
        tag="Jobs",
        description="Jobs, compatible with RunPod and worker-comfyui. Details: docs/api/worker-comfyui.md",
        operations=OPERATIONS,
        failure=schemas.JobFailure,
        path_parameters={
            "endpoint_id": "An instance (id or name), a tag of instances, or `any`; case-insensitive",
            "job_id": "Id of the job",
        },
    ),
)
