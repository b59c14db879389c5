"""Progress documents of invented runs."""

from typing import Any

from msgspec import convert

from comfyui_workflow.client.documents import ProgressDocument

RUN_ID = "comfyui_workflow_1_a"


def raw_progress(**fields: Any) -> dict[str, Any]:
    return {
        "workflow_id": RUN_ID,
        "workflow_name": "a lake",
        "status": "executing",
        "phase": "executing",
        "queue_time": "2026-01-01T10:00:00Z",
        **fields,
    }


def progress(*nodes: dict[str, Any], **fields: Any) -> ProgressDocument:
    done = sum(node["status"] == "executed" for node in nodes)
    raw = raw_progress(nodes=list(nodes), total_nodes=len(nodes), completed_nodes=done, **fields)
    return convert({**raw, "raw": raw}, ProgressDocument)


def node(node_id: str, status: str = "pending", **fields: Any) -> dict[str, Any]:
    return {"node_id": node_id, "node_type": f"Class{node_id}", "status": status, **fields}
