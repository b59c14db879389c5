"""Response documents of the native API: the fields that a client uses; `raw` has the whole response."""

from datetime import datetime
from typing import Any

import msgspec

from comfyui_workflow.runs.status import FileType, NodeStatus, Phase, RunStatus
from comfyui_workflow.workflows.findings import Severity

_LONG = ("raw", "graph")


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the documents, made by `Calls.read`, which checks the types. A msgspec struct: it is imported
    and parsed many times faster than a pydantic model, and every command waits for it."""

    def __repr__(self) -> str:
        """Leaves out the long fields."""
        fields = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in _LONG)
        return f"{type(self).__name__}({', '.join(fields)})"


class StartedDocument(Document, frozen=True, kw_only=True):
    """Response to `execute`."""

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
    """None if unknown, and for a cached node."""


class OutputDocument(Document, frozen=True, kw_only=True):
    """An output file of a run. `local_path` is a path on the server's machine; `error` says why there is
    none."""

    filename: str
    subfolder: str = ""
    folder: str = "output"
    file_type: FileType = FileType.OTHER
    node_id: str = ""
    local_path: str | None = None
    size_bytes: int | None = None
    downloaded: bool = False
    error: str | None = None
    upload_url: str | None = None
    """Where the file was uploaded to, if the run has an `upload`."""
    upload_error: str | None = None
    raw: dict[str, Any] = {}


class LivePreviewDocument(Document, frozen=True, kw_only=True):
    """A preview picture is available at `WorkflowServer.live_preview_url`. `number` grows with each
    picture."""

    number: int
    node_id: str
    content_type: str


class TransferDocument(Document, frozen=True, kw_only=True):
    """A running transfer of a file between the server and the instance, or a storage."""

    direction: str
    """`upload` or `download`."""
    filename: str
    done_bytes: int = 0
    total_bytes: int | None = None


class ProgressDocument(Document, frozen=True, kw_only=True):
    """A run. `raw` is the whole document as the server sent it."""

    workflow_id: str
    workflow_name: str
    prompt_id: str | None = None
    status: RunStatus
    queue_position: int | None = None
    """Number of prompts ahead of it on the instance, the running one included; None once it runs."""
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
    """True if the server would accept `retry`."""
    retry_refused: str | None = None
    """Sentence that says why the server would refuse `retry`."""
    phase: Phase = Phase.WAITING
    message: str | None = None
    """Sentence about the current step."""
    notices: tuple[str, ...] = ()
    submissions: int = 0
    instance: str | None = None
    """Name of the instance that the run was assigned to."""
    instance_reason: str | None = None
    batch_id: str | None = None
    parent_id: str | None = None
    """The run that this one is a part of."""
    parts: int = 0
    """Number of parts of the run; 0 for a run on one instance."""
    children: tuple["PartDocument", ...] = ()
    priority: int = 0
    gpu_seconds: float = 0.0
    cost: float | None = None
    """None if no price is known."""
    live_preview: LivePreviewDocument | None = None
    transfers: tuple[TransferDocument, ...] = ()
    """The transfers that are running now."""
    raw: dict[str, Any]


class PartDocument(Document, frozen=True, kw_only=True):
    """A part of a run with `spread`: a run of its own."""

    part: int
    """Number of the part, from 1."""
    workflow_id: str
    status: RunStatus
    progress_percent: float = 0.0
    instance: str | None = None
    error_message: str | None = None


class SummaryDocument(Document, frozen=True, kw_only=True):
    """A run in the list of runs."""

    workflow_id: str
    workflow_name: str
    status: RunStatus
    progress_percent: float = 0.0
    output_count: int = 0
    queue_time: datetime
    error_message: str | None = None
    """Cut to its beginning if it is long."""
    notices: tuple[str, ...] = ()
    can_retry: bool = False
    retry_refused: str | None = None
    instance: str | None = None
    batch_id: str | None = None
    priority: int = 0
    gpu_seconds: float = 0.0
    cost: float | None = None
    raw: dict[str, Any]


class CustomWorkflowDocument(Document, frozen=True, kw_only=True):
    """A custom workflow of the server. `trouble` says why its file cannot be used."""

    name: str
    kind: str
    summary: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    """JSON Schema of `input`; None if the file cannot be used."""
    trouble: str | None = None
    raw: dict[str, Any]


class FindingDocument(Document, frozen=True, kw_only=True):
    """A problem that the validation found. `message` names the node if it is about one."""

    severity: Severity
    code: str
    message: str
    node_id: str | None = None
    class_type: str | None = None
    input: str | None = None
    nearest: tuple[str, ...] = ()


class MissingModelDocument(Document, frozen=True, kw_only=True):
    """A model that the instance lacks, and where it can be had."""

    name: str
    folder: str | None = None
    node_id: str
    url: str | None = None
    size_bytes: int | None = None
    can_provide: bool = False
    """True if a run with `provision` downloads it."""
    reason: str | None = None
    """Why `provision` does not download it."""


class MissingPackDocument(Document, frozen=True, kw_only=True):
    """A node pack that the instance lacks."""

    name: str
    version: str | None = None
    class_types: tuple[str, ...] = ()
    url: str | None = None
    can_provide: bool = False
    """True if a run with `provision` installs it."""
    reason: str | None = None
    """Why `provision` does not install it."""


class InspectionDocument(Document, frozen=True, kw_only=True):
    """Result of validating a workflow against an instance."""

    valid: bool
    errors: tuple[FindingDocument, ...]
    warnings: tuple[FindingDocument, ...]
    missing: tuple[MissingModelDocument, ...] = ()
    missing_packs: tuple[MissingPackDocument, ...] = ()
    graph: dict[str, Any]
    raw: dict[str, Any]
