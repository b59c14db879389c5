"""Python clients: `ComfyUI` for a ComfyUI, `WorkflowServer` for the server of this program.

    from comfyui_workflow.client import ComfyUI, WorkflowServer

docs/client.md has examples. The import opens no connection.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from comfyui_workflow.client.batch_documents import (
    BatchOutputDocument,
    BatchProgressDocument,
    BatchRunDocument,
    BatchStartedDocument,
    BatchSummaryDocument,
)
from comfyui_workflow.client.batches import Batches
from comfyui_workflow.client.documents import (
    FindingDocument,
    InspectionDocument,
    NodeDocument,
    OutputDocument,
    PartDocument,
    ProgressDocument,
    StartedDocument,
    SummaryDocument,
)
from comfyui_workflow.client.errors import (
    PromptInterrupted,
    RequestRefused,
    RunCancelled,
    RunFailed,
    ServerUnreachable,
    TimedOut,
)
from comfyui_workflow.client.instance_documents import (
    CostsDocument,
    InstanceDocument,
    InstanceListDocument,
    InterruptionDocument,
    QueueDocument,
)
from comfyui_workflow.client.instances import InstanceFields, NamedInstances
from comfyui_workflow.client.orders import BatchOrder, Order
from comfyui_workflow.client.server import WorkflowServer
from comfyui_workflow.errors import (
    ComfyUIError,
    ComfyUIUnavailable,
    InvalidGraph,
    InvalidRequest,
    PromptFailed,
    PromptLost,
    PromptRefused,
    WorkflowError,
)
from comfyui_workflow.runs.status import RunStatus
from comfyui_workflow.workflows.findings import Finding, Severity

if TYPE_CHECKING:
    from comfyui_workflow.client.batch import BatchResult
    from comfyui_workflow.client.comfyui import ComfyUI
    from comfyui_workflow.client.monitor import Monitor
    from comfyui_workflow.comfyui.client import Submission
    from comfyui_workflow.comfyui.history import HistoryEntry, Outcome
    from comfyui_workflow.comfyui.queue import QueueSnapshot
    from comfyui_workflow.runs.model import OutputFile
    from comfyui_workflow.workflows.graph import Graph
    from comfyui_workflow.workflows.validation.preflight import Verdict

__all__ = [
    "BatchOrder",
    "BatchOutputDocument",
    "BatchProgressDocument",
    "BatchResult",
    "BatchRunDocument",
    "BatchStartedDocument",
    "BatchSummaryDocument",
    "Batches",
    "ComfyUI",
    "ComfyUIError",
    "ComfyUIUnavailable",
    "CostsDocument",
    "Finding",
    "FindingDocument",
    "Graph",
    "HistoryEntry",
    "InspectionDocument",
    "InstanceDocument",
    "InstanceFields",
    "InstanceListDocument",
    "InterruptionDocument",
    "InvalidGraph",
    "InvalidRequest",
    "Monitor",
    "NamedInstances",
    "NodeDocument",
    "Order",
    "Outcome",
    "OutputDocument",
    "OutputFile",
    "PartDocument",
    "ProgressDocument",
    "PromptFailed",
    "PromptInterrupted",
    "PromptLost",
    "PromptRefused",
    "QueueDocument",
    "QueueSnapshot",
    "RequestRefused",
    "RunCancelled",
    "RunFailed",
    "RunStatus",
    "ServerUnreachable",
    "Severity",
    "StartedDocument",
    "Submission",
    "SummaryDocument",
    "TimedOut",
    "Verdict",
    "WorkflowError",
    "WorkflowServer",
]

_IMPORTED_LATER = {
    "BatchResult": "comfyui_workflow.client.batch",
    "ComfyUI": "comfyui_workflow.client.comfyui",
    "Graph": "comfyui_workflow.workflows.graph",
    "HistoryEntry": "comfyui_workflow.comfyui.history",
    "Monitor": "comfyui_workflow.client.monitor",
    "Outcome": "comfyui_workflow.comfyui.history",
    "OutputFile": "comfyui_workflow.runs.model",
    "QueueSnapshot": "comfyui_workflow.comfyui.queue",
    "Submission": "comfyui_workflow.comfyui.client",
    "Verdict": "comfyui_workflow.workflows.validation.preflight",
}
"""Names of the ComfyUI client and their modules. They are imported at first use (PEP 562), so that a command
which only talks to our server does not wait for the import. Type checkers read the imports above."""


def __getattr__(name: str) -> Any:
    if name not in _IMPORTED_LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_IMPORTED_LATER[name]), name)
