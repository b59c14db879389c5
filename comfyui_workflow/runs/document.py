"""The JSON documents of the native API: the progress document (`/progress`, `/state`, the state file) and the
list entries of runs and batches."""

from datetime import UTC, datetime
from typing import Any

from comfyui_workflow.runs.batch import BatchProgress
from comfyui_workflow.runs.model import NodeProgress, OutputFile, Run, RunStatus
from comfyui_workflow.runs.parts import PartState
from comfyui_workflow.runs.retryability import retry_refusal
from comfyui_workflow.runs.summary import RunSummary, summary_of


def progress_document(
    run: Run, at: datetime | None = None, expected_s: float | None = None
) -> dict[str, Any]:
    """The progress document from the run alone. The caller adds what is only known while the run executes
    (`live_progress`), and the state of its `webhook`. `at` and `expected_s` as for `summary_document`."""
    return {
        **_line(summary_of(run), at or run.last_update, expected_s),
        "nodes": [_node_document(node) for node in run.nodes],
        "transfers": [],
        "outputs": [output_document(output) for output in run.outputs],
        "error_message": run.error_message,
        "notices": list(run.notices),
        "children": [part_document(part) for part in run.current_parts],
        "instance_reason": None if run.placement is None else run.placement.reason,
        "webhook": None,
    }


def summary_document(
    summary: RunSummary, at: datetime | None = None, expected_s: float | None = None
) -> dict[str, Any]:
    """A list entry: the progress document without its long lists, but with the number of outputs. GPU seconds
    and cost of an executing prompt are counted until `at`, by default until the last update. `expected_s` is
    the expected duration of the prompt."""
    return {
        **_line(summary, at or summary.last_update, expected_s),
        "output_count": summary.output_count,
        "notices": list(summary.notices),
    }


def batch_document(progress: BatchProgress) -> dict[str, Any]:
    """A batch as one list entry."""
    batch = progress.batch
    return {
        "batch_id": batch.batch_id,
        "batch_name": batch.name,
        "status": progress.status.value,
        "total": batch.total,
        "counts": {status.value: count for status, count in progress.counts.items()},
        "progress_percent": progress.percent,
        "queue_time": serialize_time(batch.created_at),
        "start_time": serialize_time(progress.start_time),
        "end_time": serialize_time(progress.end_time),
        "gpu_seconds": round(progress.gpu_s, 3),
        "cost": None if progress.cost is None else round(progress.cost, 6),
        "unpriced_runs": progress.unpriced,
        "can_retry": progress.can_retry,
        "pictures": [{"workflow_id": run_id, "number": number} for run_id, number in progress.pictures],
    }


def _line(summary: RunSummary, at: datetime, expected_s: float | None) -> dict[str, Any]:
    """The fields of the specification first, then the additional fields."""
    cost, retry_refused = summary.cost(at), retry_refusal(summary)
    return {
        "workflow_id": summary.run_id,
        "workflow_name": summary.workflow_name,
        "prompt_id": summary.prompt_id,
        "ssh_connection": summary.ssh_connection,
        "workflow_file": summary.workflow_file,
        "status": summary.status.value,
        "queue_position": summary.queue_position,
        "current_node": summary.current_node,
        "total_nodes": summary.total_nodes,
        "completed_nodes": summary.completed_nodes,
        "progress_percent": summary.progress_percent,
        "queue_time": serialize_time(summary.queue_time),
        "start_time": serialize_time(summary.start_time),
        "end_time": serialize_time(summary.end_time),
        "last_update": serialize_time(summary.last_update),
        "error_message": summary.error_message,
        "failed_node": summary.failed_node,
        "error_code": summary.error_code,
        "failed_node_id": summary.failed_node_id,
        "current_node_id": summary.current_node_id,
        "current_node_title": summary.current_node_title,
        "current_node_progress": summary.current_node_progress,
        "current_node_message": summary.current_node_message,
        "phase": summary.phase.value,
        "message": summary.message,
        "submissions": summary.submissions,
        "cancel_requested": summary.is_cancel_requested,
        "can_retry": retry_refused is None,
        "retry_refused": retry_refused,
        "instance": summary.instance_name,
        "instance_id": summary.instance_id,
        "batch_id": summary.batch_id,
        "parent_id": summary.parent_id,
        "parts": summary.part_count,
        "priority": summary.priority,
        "gpu_seconds": round(summary.gpu_seconds(at), 3),
        "cost": None if cost is None else round(cost, 6),
        "pictures": list(summary.pictures),
        "expected_s": None if expected_s is None else round(expected_s, 1),
        "live_preview": None,
    }


def part_document(part: PartState, progress_percent: float | None = None) -> dict[str, Any]:
    """A part of a run. Its progress is known from the part itself; None stands for that of its status."""
    is_completed = part.status is RunStatus.COMPLETED
    return {
        "part": part.number + 1,
        "workflow_id": part.run_id,
        "status": part.status.value,
        "progress_percent": (100.0 if is_completed else 0.0)
        if progress_percent is None
        else progress_percent,
        "instance": part.instance,
        "error_message": part.error_message,
        "gpu_seconds": round(part.gpu_s, 3),
        "cost": None if part.cost is None else round(part.cost, 6),
    }


def output_document(output: OutputFile) -> dict[str, Any]:
    return {
        "filename": output.name,
        "file_type": output.file_type.value,
        "remote_path": output.remote_path,
        "local_path": output.local_path,
        "downloaded": output.is_downloaded,
        "subfolder": output.subfolder,
        "folder": output.folder,
        "node_id": output.node_id,
        "size_bytes": output.size_bytes,
        "error": output.error,
        "upload_url": output.upload_url,
        "upload_error": output.upload_error,
        "part": None if output.part is None else output.part + 1,
    }


def _node_document(node: NodeProgress) -> dict[str, Any]:
    return {
        "node_id": node.node_id,
        "node_type": node.node_type,
        "title": node.title,
        "status": node.status.value,
        "progress": node.progress,
        "message": node.message,
        "start_time": serialize_time(node.start_time, "milliseconds"),
        "end_time": serialize_time(node.end_time, "milliseconds"),
    }


def serialize_time(at: datetime | None, precision: str = "seconds") -> str | None:
    """Formats a time as the specification does: `2026-01-02T03:04:05Z`; with `milliseconds`: `…:05.678Z`."""
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")
