"""The list of runs: all or some of them, newest first, with one row for each batch where that is wanted."""

from typing import Any

from flask import Blueprint, Response, jsonify, request

from comfyui_workflow.api.mount import Parts
from comfyui_workflow.api.native.run_documents import RunDocuments
from comfyui_workflow.api.request import number, switch
from comfyui_workflow.api.response_cache import SharedAnswers
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.runs.document import batch_document
from comfyui_workflow.runs.model import RunStatus
from comfyui_workflow.runs.summary import RunFilter, RunSummary
from comfyui_workflow.services.batches import BatchService
from comfyui_workflow.stores.journal import now

LARGEST_PAGE = 500


def add_list(routes: Blueprint, parts: Parts, answers: SharedAnswers) -> None:
    service, batches = parts.service, parts.batches
    documents = RunDocuments(service=service, live_view=parts.live_view)

    @routes.get("")
    def runs() -> Response:
        return answers.answer(request.full_path, page)

    def page() -> Response:
        limit = number(request.args.get("limit", "50"), "limit", 1, LARGEST_PAGE)
        is_grouped = switch(request.args.get("grouped") or "false", "grouped")
        look = service.grouped if is_grouped else service.summaries
        wanted, at = _wanted(batches), now()
        found = look(limit, request.args.get("before"), wanted)

        def line(summary: RunSummary) -> dict[str, Any]:
            batch = batches.progress_of_run(summary) if is_grouped else None
            return documents.line(summary, at) if batch is None else batch_document(batch)

        return jsonify(
            success=True,
            workflows=[line(summary) for summary in found],
            total=service.count(wanted),
            next=found[-1].run_id if len(found) == limit else None,
        )


def _wanted(batches: BatchService) -> RunFilter:
    """Of the query; what is empty there is not asked for."""
    name = request.args.get("name") or None
    return RunFilter(
        statuses=_statuses(request.args.get("status") or ""),
        name_contains=name,
        batches_named=batches.named(name) if name else frozenset(),
        instance=request.args.get("instance") or None,
        batch_id=request.args.get("batch") or None,
    )


def _statuses(given: str) -> frozenset[RunStatus]:
    """`?status=failed,cancelled`."""
    try:
        return frozenset(RunStatus(word.strip()) for word in given.split(",")) if given else frozenset()
    except ValueError as error:
        raise InvalidRequest(
            f"status must be one or several of {', '.join(RunStatus)}, with commas between them"
        ) from error
