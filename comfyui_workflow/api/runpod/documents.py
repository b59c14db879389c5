"""JSON documents of jobs in RunPod's format, without output files, with the error messages of worker-
comfyui."""

import re
from datetime import datetime, timedelta
from typing import Any

from comfyui_workflow.runs.job import INVALID_ORDER, NOT_DELIVERED, JobStatus
from comfyui_workflow.runs.model import Run
from comfyui_workflow.runs.target import Address, AnyInstance, InstanceId, UnreadableTarget
from comfyui_workflow.services.jobs.view import JobView

INVALID = "Workflow validation failed"
NO_IMAGES = "Failed to upload one or more input images"
NOTHING_DELIVERED = "Job processing failed"

_CONNECTION_ERRORS = frozenset(
    {
        "instance",
        "connection_failed",
        "authentication_failed",
        "host_key_refused",
        "key_refused",
        "remote_file",
        "comfyui",
        "comfyui_not_found",
        "comfyui_unavailable",
        "instance_broken",
        "invalid_ssh_connection",
        "no_instance",
    }
)
_REFUSAL_PREFIXES = (
    r"^(The instance cannot run the workflow|ComfyUI refuses the workflow|Failed to parse workflow): "
)


STATUS_WORDS = {
    JobStatus.QUEUED: "IN_QUEUE",
    JobStatus.RUNNING: "IN_PROGRESS",
    JobStatus.SUCCEEDED: "COMPLETED",
    JobStatus.FAILED: "FAILED",
    JobStatus.CANCELLED: "CANCELLED",
    JobStatus.TIMEOUT: "TIMED_OUT",
}


def document_head(view: JobView, at: datetime) -> dict[str, Any]:
    """Returns the document of a job without its output. Durations are in milliseconds. Those of a final job
    do not change, even if its run continues."""
    run, status = view.run, view.status
    head: dict[str, Any] = {"id": view.job.job_id, "status": STATUS_WORDS[status]}
    ended_at = view.job.judged_at or run.end_time or at
    began_at = run.start_time if run.start_time is not None and run.start_time <= ended_at else None
    if status.is_final or began_at is not None:
        head["delayTime"] = _ms((began_at or ended_at) - run.queue_time)
    if began_at is not None:
        executed = timedelta(seconds=run.gpu_seconds(ended_at))
        head["executionTime"] = _ms(min(executed, ended_at - began_at))
    if run.placement is not None:
        head["workerId"] = run.placement.name
    if status in (JobStatus.FAILED, JobStatus.TIMEOUT):
        head["error"] = error_of(view)
    return head


def error_of(view: JobView) -> str:
    if view.run.error_code == INVALID_ORDER:
        return view.job.refusal or view.run.error_message or ""
    if view.status is JobStatus.TIMEOUT:
        return f"Job timed out: executionTimeout of {view.job.execution_timeout_s or 0:g} s is over"
    if view.job.error_code == NOT_DELIVERED:
        return f"{NOTHING_DELIVERED}: {view.job.error}"
    return view.job.error or _error_of_run(view.run)


def _error_of_run(run: Run) -> str:
    message = run.error_message or "no reason is known"
    match run.error_code:
        case "invalid_workflow" | "prompt_refused":
            return f"{INVALID}: {re.sub(_REFUSAL_PREFIXES, '', message)}"
        case "file_refused" | "image_not_fetched":
            return f"{NO_IMAGES}: {message}"
        case "prompt_failed":
            return _execution_error(run, run.comfyui_said or message)
        case "prompt_lost":
            return f"Job processing failed, prompt ID not found in history. {message}"
        case code if code in _CONNECTION_ERRORS:
            return f"ComfyUI server ({_target_name(run)}) not reachable after multiple retries: {message}"
    return message


def _execution_error(run: Run, message: str) -> str:
    node_type = run.node_type(run.failed_node_id)
    return (
        f"Workflow execution error: Node Type: {node_type or 'unknown'}, "
        f"Node ID: {run.failed_node_id or 'unknown'}, Message: {message}"
    )


def _target_name(run: Run) -> str:
    if run.placement is not None:
        return run.placement.name
    match run.request.target:
        case Address(ssh=ssh):
            return ssh.label
        case InstanceId(text=text) | AnyInstance(text=text):
            return text
        case UnreadableTarget():
            return "unknown address"


def _ms(duration: timedelta) -> int:
    return max(0, round(duration.total_seconds() * 1000))
