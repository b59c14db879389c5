"""The progress document of the native API: what `/progress` and `/state` answer and the state file holds."""

from datetime import UTC, datetime
from typing import Any

from comfyui_workflow.runs.model import NodeProgress, OutputFile, Run


def progress_document(run: Run) -> dict[str, Any]:
    """The fields of the specification first, then our own."""
    return {
        "workflow_id": run.workflow_id,
        "workflow_name": run.request.workflow_name,
        "prompt_id": run.prompt_id,
        "ssh_connection": run.request.ssh_connection,
        "workflow_file": run.request.workflow_file,
        "status": run.status.value,
        "queue_position": run.queue_position,
        "current_node": run.node_type(run.current_node_id),
        "total_nodes": len(run.nodes),
        "completed_nodes": run.completed_nodes,
        "progress_percent": run.progress_percent,
        "nodes": [_node_document(node) for node in run.nodes],
        "queue_time": _time(run.queue_time),
        "start_time": _time(run.start_time),
        "end_time": _time(run.end_time),
        "last_update": _time(run.last_update),
        "outputs": [output_document(output) for output in run.outputs],
        "error_message": run.error_message,
        "failed_node": run.node_type(run.failed_node_id),
        "error_code": run.error_code,
        "failed_node_id": run.failed_node_id,
        "current_node_id": run.current_node_id,
        "phase": run.phase.value,
        "message": run.message,
        "notices": list(run.notices),
        "submissions": run.submissions,
        "cancel_requested": run.is_cancel_requested,
    }


_DETAILS = ("nodes", "outputs", "notices")


def summary_document(run: Run) -> dict[str, Any]:
    """A line of the list: the progress document without its lists, and how many outputs there are."""
    document = {name: value for name, value in progress_document(run).items() if name not in _DETAILS}
    return {**document, "output_count": len(run.outputs)}


def output_document(output: OutputFile) -> dict[str, Any]:
    return {
        "filename": output.filename,
        "file_type": output.file_type.value,
        "remote_path": output.remote_path,
        "local_path": output.local_path,
        "downloaded": output.is_downloaded,
        "subfolder": output.subfolder,
        "folder": output.folder,
        "node_id": output.node_id,
        "size_bytes": output.size_bytes,
        "error": output.error,
    }


def _node_document(node: NodeProgress) -> dict[str, Any]:
    return {
        "node_id": node.node_id,
        "node_type": node.node_type,
        "title": node.title,
        "status": node.status.value,
        "progress": node.progress,
        "message": node.message,
    }


def _time(at: datetime | None) -> str | None:
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
