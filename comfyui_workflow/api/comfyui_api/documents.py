"""Documents of comfyui-api: the answers to a prompt and the bodies of its webhooks, without the files."""

import re
from datetime import datetime
from typing import Any

from comfyui_workflow.api.comfyui_api.errors import NO_OUTPUTS, NOT_QUEUED, NOT_UPLOADED
from comfyui_workflow.runs.job import JobStatus
from comfyui_workflow.runs.model import Run
from comfyui_workflow.runs.upload_target import INPUT_NOT_DOWNLOADED, MODEL_NOT_DOWNLOADED, UPLOAD_FAILED
from comfyui_workflow.services.jobs.view import JobView

STATUS_WORDS = {
    JobStatus.QUEUED: "queued",
    JobStatus.RUNNING: "running",
    JobStatus.SUCCEEDED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
    JobStatus.TIMEOUT: "failed",
}
_REFUSALS = frozenset({"invalid_workflow", "prompt_refused", "api_key_gone"})
NOT_DOWNLOADED = frozenset({INPUT_NOT_DOWNLOADED, MODEL_NOT_DOWNLOADED})
_NOT_DOWNLOADED = re.compile(r"Input (\S+) could not be downloaded: (.*)", re.DOTALL)
Json = dict[str, Any]


def request_document(view: JobView) -> Json:
    """Returns what every answer repeats: the request with defaults, its id, and the prompt as it is
    submitted."""
    run = view.run
    graph = run.graph or run.request.workflow.outline
    return {**view.job.details.get("echo", {}), "id": view.job.client_id, "prompt": graph}


def accepted_document(view: JobView) -> Json:
    return {**request_document(view), "status": "ok"}


def state_document(view: JobView) -> Json:
    """Returns the state of a prompt without its files: an addition to comfyui-api."""
    document = {
        **request_document(view),
        "status": STATUS_WORDS[view.status],
        "workflow_id": view.run.run_id,
    }
    if view.status in (JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED):
        document["error"] = failure_of(view)
    return document


def failure_of(view: JobView) -> str:
    """Returns the error message of a prompt that was not completed: that of comfyui-api, and the reason."""
    run, reason = view.run, _reason(view)
    if run.error_code in NOT_DOWNLOADED:
        return download_failure(view)[0]
    if run.error_code == UPLOAD_FAILED:
        return f"{NOT_UPLOADED}: {reason}"
    if run.error_code in _REFUSALS:
        return f"{NOT_QUEUED}: {reason}"
    return f"{NO_OUTPUTS}: {reason}"


def download_failure(view: JobView) -> tuple[str, str]:
    """Returns the message about an input file or a model that could not be downloaded, and its location."""
    if view.run.error_code == MODEL_NOT_DOWNLOADED:
        return _model_failure(view)
    message = view.run.error_message or ""
    found = _NOT_DOWNLOADED.fullmatch(message)
    name, reason = (found[1], found[2]) if found else ("", message)
    failure, location = view.job.details.get("media", {}).get(name, ("Failed to download image", "prompt"))
    return f"{failure}: {reason}", location


def _model_failure(view: JobView) -> tuple[str, str]:
    """The message of the run has the name of the file. Without one it is about all models."""
    reason = view.run.error_message or ""
    models = view.job.details.get("models", {})
    whole = ("Failed to download model", "prompt")
    failure, location = next((models[name] for name in models if name in reason), whole)
    return f"{failure}: {reason}", location


def stats_document(view: JobView) -> Json:
    """Returns the durations of a finished prompt. Milliseconds; points in time since 1970."""
    run = view.run
    ended_at = run.end_time or run.last_update
    started = {node.node_id: node.start_time for node in run.nodes if node.start_time is not None}
    start = run.start_time or ended_at
    end = max(start, _execution_end(run, ended_at))
    total = {"start": _ms(start), "end": _ms(end), "duration": _ms(end) - _ms(start)}
    preprocess_ms = int(view.job.details.get("preprocess_ms", 0))
    round_trip_ms = max(0, _ms(end) - _ms(run.queue_time))
    postprocess_ms = max(0, _ms(ended_at) - _ms(end))
    nodes = {node_id: {"start": _ms(at)} for node_id, at in started.items()}
    return {
        "comfy_execution": {**total, "total": total, "nodes": nodes},
        "preprocess_time": preprocess_ms,
        "comfy_round_trip_time": round_trip_ms,
        "postprocess_time": postprocess_ms,
        "upload_time": 0,
        "total_time": preprocess_ms + round_trip_ms + postprocess_ms,
    }


def _execution_end(run: Run, ended_at: datetime) -> datetime:
    """Returns the end of the last node that was observed, otherwise the end of the run."""
    return max((node.end_time for node in run.nodes if node.end_time is not None), default=ended_at)


def _reason(view: JobView) -> str:
    if view.status is JobStatus.CANCELLED:
        return view.run.cancel_reason or "the prompt was interrupted"
    return view.run.comfyui_said or view.job.error or view.run.error_message or "no reason is known"


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
