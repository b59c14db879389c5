"""Response documents of the batch routes: the fields that a client uses; `raw` has the whole response."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from comfyui_workflow.client.documents import Document, OutputDocument, SummaryDocument
from comfyui_workflow.runs.status import RunStatus


class BatchStartedDocument(Document, frozen=True, kw_only=True):
    """Response to a batch order; the run ids are in the order of the runs."""

    batch_id: str
    workflow_ids: tuple[str, ...]
    message: str = ""
    raw: dict[str, Any]


class BatchFailureDocument(Document, frozen=True, kw_only=True):
    workflow_id: str
    error_message: str | None = None
    error_code: str | None = None
    failed_node_id: str | None = None


class BatchNoticeDocument(Document, frozen=True, kw_only=True):
    """A notice, with the first twenty runs that have it, and the number of all."""

    message: str
    workflow_ids: tuple[str, ...]
    count: int


class BatchProgressDocument(Document, frozen=True, kw_only=True):
    """Progress of a batch. `status`: once all runs are finished, the worst status of them. `failures`: the
    first twenty."""

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
    """None if no price is known."""
    unpriced_runs: int = 0
    """Number of runs that executed at an unknown price; `cost` does not include them."""
    can_retry: bool = False
    """True if `retry` would retry at least one of the runs."""
    failures: tuple[BatchFailureDocument, ...] = ()
    notices: tuple[BatchNoticeDocument, ...] = ()
    raw: dict[str, Any]

    def count(self, *statuses: RunStatus) -> int:
        """Returns the number of runs with one of these statuses."""
        return sum(self.counts.get(status, 0) for status in statuses)


class BatchRunDocument(SummaryDocument, frozen=True, kw_only=True):
    """One run in the summary of a batch."""

    inputs: Mapping[str, Any] = {}
    """The inputs that were set for this run."""


class BatchSummaryDocument(Document, frozen=True, kw_only=True):
    """A batch and its runs, in order."""

    batch: BatchProgressDocument
    workflows: tuple[BatchRunDocument, ...]
    raw: dict[str, Any]


class BatchOutputDocument(OutputDocument, frozen=True, kw_only=True):
    """An output of a batch. `number`: its index in the outputs of its run, from 0."""

    workflow_id: str
    number: int
