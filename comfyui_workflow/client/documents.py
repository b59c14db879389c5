"""What the native API answers, as far as a client looks at it. A server may say more: that is in `raw`."""

from datetime import datetime
from typing import Any

import msgspec

from comfyui_workflow.runs.status import FileType, NodeStatus, Phase, RunStatus
from comfyui_workflow.workflows.findings import Severity

_LONG = ("raw", "graph")


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """Made by `Calls.read`, which checks the types. A struct of msgspec: it is imported and read many times
    faster than a model of pydantic, and every command waits for it."""

    def __repr__(self) -> str:
        """Without what is long."""
        told = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in _LONG)
        return f"{type(self).__name__}({', '.join(told)})"


class StartedDocument(Document, frozen=True, kw_only=True):
    """A run that was started."""

    workflow_id: str
    message: str = ""
    raw: dict[str, Any]


class NodeDocument(Document, frozen=True, kw_only=True):
    node_id: str
    node_type: str
    title: str | None = None
    status: NodeStatus
    progress: float = 0.0
    """Percent."""
    message: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    """None where it is not known, and for a cached node."""


class OutputDocument(Document, frozen=True, kw_only=True):
    """`local_path` is one of the server's machine; `error` says why there is none."""

    filename: str
    subfolder: str = ""
    folder: str = "output"
    file_type: FileType = FileType.OTHER
    node_id: str = ""
    local_path: str | None = None
    size_bytes: int | None = None
    downloaded: bool = False
    error: str | None = None
    raw: dict[str, Any] = {}


class LivePreviewDocument(Document, frozen=True, kw_only=True):
    """There is a picture, at `WorkflowServer.live_preview_url`. `number` grows with each."""

    number: int
    node_id: str
    content_type: str


class TransferDocument(Document, frozen=True, kw_only=True):
    """A file on its way between the server and the instance."""

    direction: str
    """`upload` or `download`."""
    filename: str
    done_bytes: int = 0
    total_bytes: int | None = None


class ProgressDocument(Document, frozen=True, kw_only=True):
    """A run. `raw` is the document as the server sent it, for those who want all of it."""

    workflow_id: str
    workflow_name: str
    prompt_id: str | None = None
    status: RunStatus
    queue_position: int | None = None
    """Prompts ahead of it on the instance, the running one included; None once it runs."""
    current_node: str | None = None
    total_nodes: int = 0
    completed_nodes: int = 0
    progress_percent: float = 0.0
    nodes: tuple[NodeDocument, ...] = ()
    queue_time: datetime
    start_time: datetime | None = None
    end_time: datetime | None = None
    outputs: tuple[OutputDocument, ...] = ()
    error_message: str | None = None
    error_code: str | None = None
    failed_node: str | None = None
    failed_node_id: str | None = None
    can_retry: bool = False
    """Whether `retry` would be accepted."""
    retry_refused: str | None = None
    """Why it would not, in a sentence."""
    phase: Phase = Phase.WAITING
    message: str | None = None
    """What happens just now, in words."""
    notices: tuple[str, ...] = ()
    submissions: int = 0
    instance: str | None = None
    """Name of the instance it was given to."""
    instance_reason: str | None = None
    batch_id: str | None = None
    priority: int = 0
    gpu_seconds: float = 0.0
    cost: float | None = None
    """None where no price is known."""
    live_preview: LivePreviewDocument | None = None
    transfers: tuple[TransferDocument, ...] = ()
    """Those on their way just now."""
    raw: dict[str, Any]


class SummaryDocument(Document, frozen=True, kw_only=True):
    """A line of the list."""

    workflow_id: str
    workflow_name: str
    status: RunStatus
    progress_percent: float = 0.0
    output_count: int = 0
    queue_time: datetime
    error_message: str | None = None
    """The beginning of it, when it is long."""
    can_retry: bool = False
    retry_refused: str | None = None
    instance: str | None = None
    batch_id: str | None = None
    priority: int = 0
    gpu_seconds: float = 0.0
    cost: float | None = None
    raw: dict[str, Any]


class FindingDocument(Document, frozen=True, kw_only=True):
    """`message` names the node, where it is one."""

    severity: Severity
    code: str
    message: str
    node_id: str | None = None
    class_type: str | None = None
    input: str | None = None
    nearest: tuple[str, ...] = ()


class InspectionDocument(Document, frozen=True, kw_only=True):
    """What an instance would say of a workflow."""

    valid: bool
    errors: tuple[FindingDocument, ...]
    warnings: tuple[FindingDocument, ...]
    graph: dict[str, Any]
    raw: dict[str, Any]
