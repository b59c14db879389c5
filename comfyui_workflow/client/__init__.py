"""The Python client: of a ComfyUI, and of our own server.

    from comfyui_workflow.client import ComfyUI, WorkflowServer

docs/client.md shows what they do. Importing this opens nothing.
"""

from comfyui_workflow.client.batch import BatchResult
from comfyui_workflow.client.batch_documents import (
    BatchOutputDocument,
    BatchProgressDocument,
    BatchRunDocument,
    BatchStartedDocument,
    BatchSummaryDocument,
)
from comfyui_workflow.client.batches import Batches
from comfyui_workflow.client.comfyui import ComfyUI
from comfyui_workflow.client.documents import (
    FindingDocument,
    InspectionDocument,
    NodeDocument,
    OutputDocument,
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
from comfyui_workflow.client.monitor import Monitor
from comfyui_workflow.client.orders import BatchOrder, Order
from comfyui_workflow.client.server import WorkflowServer
from comfyui_workflow.comfyui.client import Submission
from comfyui_workflow.comfyui.history import HistoryEntry, Outcome
from comfyui_workflow.comfyui.queue import QueueSnapshot
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
from comfyui_workflow.runs.model import OutputFile, RunStatus
from comfyui_workflow.workflows.findings import Finding, Severity
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
