"""JSON documents of runs: the stored state, the expected duration and the live progress."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from comfyui_workflow.execution.live_progress import LiveProgress
from comfyui_workflow.runs.document import progress_document, summary_document
from comfyui_workflow.runs.model import Run
from comfyui_workflow.runs.summary import RunSummary
from comfyui_workflow.services.notifications import RunNotifier
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.stores.journal import now


@dataclass(frozen=True, kw_only=True)
class RunDocuments:
    """Builds the documents. A finished run has no live progress, even while its thread still cleans up."""

    service: RunService
    live_view: LiveProgress
    notifier: RunNotifier

    def progress(self, run: Run) -> dict[str, Any]:
        document = progress_document(run, now(), self.service.expected_s(run))
        document["webhook"] = self.notifier.of_run(run)
        return document if run.is_finished else document | self.live_view.document(run.run_id)

    def line(self, summary: RunSummary, at: datetime) -> dict[str, Any]:
        document = summary_document(summary, at, self.service.expected_s(summary))
        return document if summary.is_finished else document | self.live_view.line(summary.run_id)
