"""JSON documents of runs: the stored state, the expected duration and the live progress."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from comfyui_workflow.execution.live_progress import LiveProgress
from comfyui_workflow.runs.document import part_document, progress_document, summary_document
from comfyui_workflow.runs.model import Run
from comfyui_workflow.runs.summary import RunSummary
from comfyui_workflow.services.notifications import RunNotifier
from comfyui_workflow.services.parts import LivePart, live_parts, progress_with_parts
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.stores.journal import now


@dataclass(frozen=True, kw_only=True)
class RunDocuments:
    """Builds the documents. A finished run has no live progress, even while its thread still cleans up."""

    service: RunService
    live_view: LiveProgress
    notifier: RunNotifier

    def progress(self, run: Run) -> dict[str, Any]:
        at = now()
        document = progress_document(run, at, self.service.expected_s(run))
        document["webhook"] = self.notifier.of_run(run)
        if run.is_finished:
            return document
        document |= self.live_view.document(run.run_id)
        if run.parts:
            parts = live_parts(self.service, run, at)
            document |= _fields_of_parts(document, run, parts)
            document["children"] = [part_document(each.state, each.progress_percent) for each in parts]
        return document

    def line(self, summary: RunSummary, at: datetime) -> dict[str, Any]:
        document = summary_document(summary, at, self.service.expected_s(summary))
        if summary.is_finished:
            return document
        document |= self.live_view.line(summary.run_id)
        if summary.part_count:
            run = self.service.get(summary.run_id)
            document |= _fields_of_parts(document, run, live_parts(self.service, run, at))
        return document


def _fields_of_parts(document: dict[str, Any], run: Run, parts: list[LivePart]) -> dict[str, Any]:
    """Returns the fields of an unfinished run that come from its parts too."""
    running = [part for part in parts if not part.state.status.is_finished]
    costs = [part.state.cost for part in running if part.state.cost is not None]
    cost = None if document["cost"] is None and not costs else (document["cost"] or 0.0) + sum(costs)
    executed = sum(part.state.gpu_s for part in running)
    message = f"{len(parts) - len(running)} of {len(parts)} parts have ended" if run.waits_for_parts else None
    return {
        "message": document["message"] or message,
        "progress_percent": progress_with_parts(run, parts),
        "gpu_seconds": round(document["gpu_seconds"] + executed, 3),
        "cost": None if cost is None else round(cost, 6),
    }
