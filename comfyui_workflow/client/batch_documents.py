"""What the routes of the batches answer, as far as a client looks at it; `raw` has all of it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from comfyui_workflow.client.documents import Document, OutputDocument, SummaryDocument
from comfyui_workflow.runs.status import RunStatus


class BatchStartedDocument(Document, frozen=True, kw_only=True):
    """A batch that was ordered; the runs in their order."""

    batch_id: str
    workflow_ids: tuple[str, ...]
    message: str = ""
    raw: dict[str, Any]


class BatchFailureDocument(Document, frozen=True, kw_only=True):
    workflow_id: str
    error_message: str | None = None
    error_code: str | None = None
    failed_node_id: str | None = None


class BatchProgressDocument(Document, frozen=True, kw_only=True):
    """`status` is the worst of its runs, once all are finished. `failures` has the first twenty."""

    batch_id: str
    batch_name: str
    status: RunStatus
    total: int
    counts: Mapping[RunStatus, int]
    progress_percent: float = 0.0
    queue_time: datetime
    start_time: datetime | None = None
    end_time: datetime | None = None
    stagger_s: float = 0.0
    on_error: str = "continue"
    gpu_seconds: float = 0.0
    cost: float | None = None
    """None where no price is known."""
    unpriced_runs: int = 0
    """Those that executed at no known price: the cost is without them."""
    can_retry: bool = False
    """Whether `retry` would take up one of its runs."""
    failures: tuple[BatchFailureDocument, ...] = ()
    raw: dict[str, Any]

    def count(self, *statuses: RunStatus) -> int:
        """How many runs have one of them."""
        return sum(self.counts.get(status, 0) for status in statuses)


class BatchRunDocument(SummaryDocument, frozen=True, kw_only=True):
    """A line of the summary."""

    inputs: Mapping[str, Any] = {}
    """Those that were set."""


class BatchSummaryDocument(Document, frozen=True, kw_only=True):
    """The runs in their order."""

    batch: BatchProgressDocument
    workflows: tuple[BatchRunDocument, ...]
    raw: dict[str, Any]


class BatchOutputDocument(OutputDocument, frozen=True, kw_only=True):
    """`number`: which of the outputs of its run, counted from 0."""

    workflow_id: str
    number: int
