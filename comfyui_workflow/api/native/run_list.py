"""The list of runs, newest first: filtered, in pages, and optionally with one row for each batch."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Response, jsonify, request

from comfyui_workflow.api.native import schemas
from comfyui_workflow.api.native.run_documents import RunDocuments
from comfyui_workflow.api.request import number, switch
from comfyui_workflow.api.response_cache import ResponseCache
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.runs.document import batch_document
from comfyui_workflow.runs.model import RunStatus
from comfyui_workflow.runs.summary import RunFilter, RunSummary
from comfyui_workflow.services.batches import BatchService
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.stores.journal import now


@dataclass(frozen=True, kw_only=True)
class RunList:
    service: RunService
    batches: BatchService
    documents: RunDocuments
    cache: ResponseCache

    def runs(self) -> Response:
        return self.cache.response_of(request.full_path, self._page)

    def _page(self) -> Response:
        limit = number(request.args.get("limit", "50"), "limit", 1, schemas.LARGEST_LIST_PAGE)
        is_grouped = switch(request.args.get("grouped") or "false", "grouped")
        find = self.service.grouped if is_grouped else self.service.summaries
        run_filter, at = _read_filter(self.batches), now()
        found = find(limit, request.args.get("before"), run_filter)
        return jsonify(
            success=True,
            workflows=[self._line(summary, at, is_grouped=is_grouped) for summary in found],
            total=self.service.count(run_filter),
            next=found[-1].run_id if len(found) == limit else None,
        )

    def _line(self, summary: RunSummary, at: datetime, *, is_grouped: bool) -> dict[str, Any]:
        batch = self.batches.progress_of_run(summary) if is_grouped else None
        return self.documents.line(summary, at) if batch is None else batch_document(batch)


def _read_filter(batches: BatchService) -> RunFilter:
    """Parses the filter of the query. An empty parameter is ignored."""
    name = request.args.get("name") or None
    return RunFilter(
        statuses=_statuses(request.args.get("status") or ""),
        name_contains=name,
        batches_named=batches.named(name) if name else frozenset(),
        instance=request.args.get("instance") or None,
        batch_id=request.args.get("batch") or None,
        with_parts=switch(request.args.get("parts") or "false", "parts"),
    )


def _statuses(given: str) -> frozenset[RunStatus]:
    """Parses a list such as `failed,cancelled`. Raises: InvalidRequest."""
    try:
        return frozenset(RunStatus(status.strip()) for status in given.split(",")) if given else frozenset()
    except ValueError as error:
        raise InvalidRequest(
            f"status must be one or several of {', '.join(RunStatus)}, with commas between them"
        ) from error
