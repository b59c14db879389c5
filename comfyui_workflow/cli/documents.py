"""What the native API answers, as far as the commands look at it. A server may say more."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from comfyui_workflow.runs.model import NodeStatus, Phase, RunStatus
from comfyui_workflow.workflows.findings import Severity


class Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class NodeDocument(Document):
    node_id: str
    node_type: str
    title: str | None = None
    status: NodeStatus
    progress: float = 0.0
    message: str | None = None


class OutputDocument(Document):
    filename: str
    local_path: str | None = None
    downloaded: bool = False
    error: str | None = None


class ProgressDocument(Document):
    """`raw` is the document as the server sent it, for those who want all of it."""

    workflow_id: str
    workflow_name: str
    status: RunStatus
    queue_position: int | None = None
    total_nodes: int = 0
    completed_nodes: int = 0
    nodes: tuple[NodeDocument, ...] = ()
    queue_time: datetime
    start_time: datetime | None = None
    end_time: datetime | None = None
    outputs: tuple[OutputDocument, ...] = ()
    error_message: str | None = None
    error_code: str | None = None
    phase: Phase = Phase.WAITING
    message: str | None = None
    notices: tuple[str, ...] = ()
    raw: dict[str, Any] = Field(repr=False)


class SummaryDocument(Document):
    """A line of the list."""

    workflow_id: str
    workflow_name: str
    status: RunStatus
    progress_percent: float = 0.0
    output_count: int = 0
    queue_time: datetime
    error_message: str | None = None
    raw: dict[str, Any] = Field(repr=False)


class FindingDocument(Document):
    """`message` names the node, where it is one."""

    severity: Severity
    code: str
    message: str
    class_type: str | None = None


class InspectionDocument(Document):
    """What an instance would say of a workflow."""

    valid: bool
    errors: tuple[FindingDocument, ...]
    warnings: tuple[FindingDocument, ...]
    graph: dict[str, Any] = Field(repr=False)
    raw: dict[str, Any] = Field(repr=False)
