"""/v2/<endpoint_id>/* and the bare paths: jobs, as RunPod and its worker-comfyui have them."""

import re
from collections.abc import Callable
from threading import BoundedSemaphore
from typing import IO, Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.wsgi import wrap_file

from comfyui_workflow.api.error_responses import keep_headers, status_of
from comfyui_workflow.api.mount import Api, Parts
from comfyui_workflow.api.request import json_body, number
from comfyui_workflow.api.runpod.rate_limits import RateLimits
from comfyui_workflow.api.runpod.requests import job_order_reader
from comfyui_workflow.errors import WorkflowError
from comfyui_workflow.instances.state import InstanceState, Reachability
from comfyui_workflow.runs.job import JobStatus
from comfyui_workflow.runs.target import read_any
from comfyui_workflow.server.body_limits import BodyLimit
from comfyui_workflow.services.jobs.finalizer import has_output
from comfyui_workflow.services.jobs.output import output_of, spooled_document, spooled_stream
from comfyui_workflow.services.jobs.words import JobView, document_head
from comfyui_workflow.stores.journal import now

PREFIX = "/v2"
BARE = ("/run", "/runsync", "/status", "/status-sync", "/stream", "/cancel", "/retry", "/purge-queue")
MOST_WAITING = 6
"""Whoever waits takes up a thread of the server; most of those are left for the others."""
USUAL_WAIT_MS = 90_000
LEAST_WAIT_MS = 1_000
LONGEST_WAIT_MS = 300_000

MB = 1024 * 1024
LARGEST_BODIES_MB = {"run": 10, "runsync": 20}

View = Callable[..., Response]


def create_blueprint(parts: Parts) -> Blueprint:
    routes = Blueprint("worker_comfyui", __name__)
    jobs, orders = parts.jobs, job_order_reader(parts)
    waiting = BoundedSemaphore(MOST_WAITING)
    limits = RateLimits(are_on=parts.settings.rate_limits)

    def route(rule: str, *methods: str) -> Callable[[View], View]:
        """At both places; at the bare path there is no `endpoint_id`."""

        word = rule.split("/")[1]

        def add(view: View) -> View:
            def limited(endpoint_id: str | None, **arguments: str) -> Response:
                limits.check(word, (endpoint_id or parts.settings.default_endpoint).lower())
                return view(endpoint_id, **arguments)

            routes.add_url_rule(f"{PREFIX}/<endpoint_id>{rule}", word, limited, methods=methods)
            if f"/{word}" in BARE:
                bare: dict[str, Any] = {"defaults": {"endpoint_id": None}, "methods": methods}
                routes.add_url_rule(rule, f"bare {word}", limited, **bare)
            return view

        return add

    def submitted(endpoint_id: str | None, *, is_sync: bool) -> JobView:
        endpoint = orders.endpoint(endpoint_id)
        return jobs.submit(orders.read(json_body(), endpoint, is_sync=is_sync))

    def awaited(view: JobView) -> JobView:
        """As it is at once, where too many wait already, and for who asks for the head alone."""
        wait_ms = _wait_ms()
        if view.job.final is None and request.method != "HEAD" and waiting.acquire(blocking=False):
            try:
                return jobs.wait(view.job.job_id, wait_ms / 1000)
            finally:
                waiting.release()
        return jobs.get(view.job.job_id)

    def word_job(view: JobView) -> Response:
        head = document_head(view, now())
        if not has_output(view):
            return jsonify(head)
        return _spooled(spooled_document(head, output_of(view), parts.settings.data_dir))

    def word_standing(view: JobView) -> Response:
        return jsonify(id=view.job.job_id, status=view.status.value)

    @route("/run", "POST")
    def run(endpoint_id: str | None) -> Response:
        return word_standing(submitted(endpoint_id, is_sync=False))

    @route("/runsync", "POST")
    def runsync(endpoint_id: str | None) -> Response:
        _wait_ms()  # before anything is ordered
        return word_job(awaited(submitted(endpoint_id, is_sync=True)))

    @route("/status/<job_id>", "GET", "POST")
    def status(endpoint_id: str | None, job_id: str) -> Response:
        return word_job(jobs.get(job_id))

    @route("/status-sync/<job_id>", "GET", "POST")
    def status_sync(endpoint_id: str | None, job_id: str) -> Response:
        return word_job(awaited(jobs.get(job_id)))

    @route("/stream/<job_id>", "GET", "POST")
    def stream(endpoint_id: str | None, job_id: str) -> Response:
        take = jobs.outputs_left if request.method == "HEAD" else jobs.take_outputs
        view, files = take(job_id)
        return _spooled(spooled_stream(document_head(view, now()), files, parts.settings.data_dir))

    @route("/cancel/<job_id>", "POST")
    def cancel(endpoint_id: str | None, job_id: str) -> Response:
        return word_standing(jobs.cancel(job_id))

    @route("/retry/<job_id>", "POST")
    def retry(endpoint_id: str | None, job_id: str) -> Response:
        jobs.retry(job_id)
        return jsonify(id=job_id, status=JobStatus.IN_QUEUE.value)

    @route("/purge-queue", "POST")
    def purge_queue(endpoint_id: str | None) -> Response:
        removed = jobs.purge(orders.endpoint(endpoint_id).word)
        return jsonify(removed=removed, status="completed")

    @route("/health", "GET")
    def health(endpoint_id: str | None) -> Response:
        word = orders.endpoint(endpoint_id).word
        return jsonify(jobs=_job_counts(parts, word), workers=_worker_counts(parts, word))

    return routes


def body_limit(path: str) -> BodyLimit | None:
    """RunPod's; told before the body is read."""
    found = re.fullmatch(rf"({PREFIX}/[^/]+)?/(?P<word>run|runsync)", path)
    if found is None:
        return None
    most_mb = LARGEST_BODIES_MB[found["word"]]
    return BodyLimit(
        most_bytes=most_mb * MB,
        message=f"Request body is larger than {most_mb} MB, the most that /{found['word']} takes: "
        "name large images by their URL",
    )


def word_error(error: WorkflowError) -> Response:
    return _failure(str(error), status_of(error))


def word_http_error(error: HTTPException) -> Response:
    response = _failure(error.description or error.name, error.code or 500)
    keep_headers(error, response)
    return response


API = Api(
    prefix=PREFIX,
    also_at=BARE,
    create_blueprint=create_blueprint,
    word_error=word_error,
    word_http_error=word_http_error,
)


def _failure(message: str, status: int) -> Response:
    response = jsonify(error=message)
    response.status_code = status
    return response


def _spooled(file: IO[bytes]) -> Response:
    """Handed over whole, so that it is sent by the server's loop and not by this thread."""
    size_bytes = file.seek(0, 2)
    file.seek(0)
    response = Response(
        wrap_file(request.environ, file), mimetype="application/json", direct_passthrough=True
    )
    response.content_length = size_bytes
    return response


def _wait_ms() -> int:
    given = request.args.get("wait")
    return USUAL_WAIT_MS if not given else number(given, "wait", LEAST_WAIT_MS, LONGEST_WAIT_MS)


def _job_counts(parts: Parts, endpoint: str) -> dict[str, int]:
    counted = parts.jobs.counts(endpoint)
    failed = counted.get(JobStatus.FAILED, 0) + counted.get(JobStatus.TIMED_OUT, 0)
    return {
        "completed": counted.get(JobStatus.COMPLETED, 0),
        "failed": failed,
        "inProgress": counted.get(JobStatus.IN_PROGRESS, 0),
        "inQueue": counted.get(JobStatus.IN_QUEUE, 0),
        "retried": counted.get("retried", 0),
    }


def _worker_counts(parts: Parts, endpoint: str) -> dict[str, int]:
    """An instance is a worker: initializing while it is not known to be ready, throttled while it is away."""
    instances, meant = parts.instances, read_any(endpoint)
    counted = dict.fromkeys(("idle", "initializing", "ready", "running", "throttled"), 0)
    for instance in instances.directory.all():
        if instance.is_meant_by(meant.tag) if meant else instance.id == endpoint:
            counted[_worker_word(instances.watches.state(instance.id))] += 1
    counted["ready"] = counted["idle"]
    return counted


def _worker_word(state: InstanceState) -> str:
    if state.reachability is Reachability.UNREACHABLE:
        return "throttled"
    if not state.is_ready:
        return "initializing"
    return "running" if state.prompts is not None and state.prompts.is_busy else "idle"
