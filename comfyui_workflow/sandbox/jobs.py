"""Jobs as GET /api/jobs shows them: prompts of the queue and of the history in one form."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from comfyui_workflow.sandbox.history import HistoryEntry
from comfyui_workflow.sandbox.prompt_queue import QueueItem
from comfyui_workflow.sandbox.versions import Version

Job = dict[str, Any]

_ENDINGS = ("execution_success", "execution_error", "execution_interrupted")
_MODELS_3D = (".obj", ".fbx", ".gltf", ".glb", ".usdz")
_TEXTS = (".txt", ".md", ".json")
_LONGEST_TEXT = 1024
_SORT_KEYS = ("created_at", "execution_duration")


class InvalidQuery(Exception):
    """A parameter of the query is refused; the message is the response's `error`."""


@dataclass(frozen=True, kw_only=True)
class JobQuery:
    """Filter, order and page of GET /api/jobs."""

    statuses: frozenset[str]
    workflow_id: str | None
    by_duration: bool
    is_descending: bool
    limit: int | None
    offset: int


def statuses_of(version: Version) -> tuple[str, ...]:
    known = ("pending", "in_progress", "completed", "failed")
    return (*known, "cancelled") if version.cancels_jobs else known


def read_query(query: dict[str, str], version: Version) -> JobQuery:
    """Raises: InvalidQuery."""
    known = statuses_of(version)
    wanted = [part.strip().lower() for part in query.get("status", "").split(",") if part.strip()]
    if unknown := [status for status in wanted if status not in known]:
        raise InvalidQuery(f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(known)}")
    sort_by, order = query.get("sort_by", "created_at").lower(), query.get("sort_order", "desc").lower()
    if sort_by not in _SORT_KEYS:
        raise InvalidQuery("sort_by must be 'created_at' or 'execution_duration'")
    if order not in ("asc", "desc"):
        raise InvalidQuery("sort_order must be 'asc' or 'desc'")
    limit = _integer(query, "limit")
    if limit is not None and limit <= 0:
        raise InvalidQuery("limit must be a positive integer")
    return JobQuery(
        statuses=frozenset(wanted or known),
        workflow_id=query.get("workflow_id") or None,
        by_duration=sort_by == "execution_duration",
        is_descending=order == "desc",
        limit=limit,
        offset=max(0, _integer(query, "offset") or 0),
    )


def page(jobs: list[Job], query: JobQuery) -> dict[str, Any]:
    """Returns the response to GET /api/jobs."""
    found = [
        job
        for job in jobs
        if job["status"] in query.statuses and query.workflow_id in (None, job.get("workflow_id"))
    ]
    key = _duration if query.by_duration else _creation
    found.sort(key=key, reverse=query.is_descending)
    end = None if query.limit is None else query.offset + query.limit
    shown = found[query.offset : end]
    has_more = query.offset + len(shown) < len(found)
    about = {"offset": query.offset, "limit": query.limit, "total": len(found), "has_more": has_more}
    return {"jobs": shown, "pagination": about}


def queued_job(item: QueueItem, status: str, version: Version) -> Job:
    """Returns the job of a prompt in the queue. `status` is "pending" or "in_progress"."""
    number, prompt_id, _, extra_data, _ = item
    created, workflow_id = _about(extra_data)
    job = {
        "id": prompt_id,
        "status": status,
        "priority": number,
        "create_time": created,
        "outputs_count": 0,
        "previewable_outputs_count": 0 if version.cancels_jobs else None,
        "workflow_id": workflow_id,
    }
    return _without_none(job)


def finished_job(prompt_id: str, entry: HistoryEntry, version: Version) -> Job:
    """Returns the job of a prompt in the history, as a list of jobs shows it."""
    number, _, _, extra_data, _ = entry["prompt"]
    created, workflow_id = _about(extra_data)
    messages = dict(entry["status"]["messages"])
    ending: dict[str, Any] = next((messages[kind] for kind in _ENDINGS if kind in messages), {})
    files = list(_files(entry["outputs"]))
    job = {
        "id": prompt_id,
        "status": _status(entry, messages, version),
        "priority": number,
        "create_time": created,
        "execution_start_time": messages.get("execution_start", {}).get("timestamp"),
        "execution_end_time": ending.get("timestamp"),
        "execution_error": messages.get("execution_error"),
        "outputs_count": len(files),
        "previewable_outputs_count": sum(map(_is_previewable, files)) if version.cancels_jobs else None,
        "preview_output": _preview(files, entry["outputs"], version),
        "workflow_id": workflow_id,
    }
    return _without_none(job)


def full_job(prompt_id: str, entry: HistoryEntry, version: Version) -> Job:
    """Returns the job of a prompt in the history, as GET /api/jobs/{id} shows it."""
    _, _, graph, extra_data, _ = entry["prompt"]
    return {
        **finished_job(prompt_id, entry, version),
        "outputs": entry["outputs"],
        "execution_status": entry["status"],
        "workflow": {"prompt": graph, "extra_data": extra_data},
    }


def _status(entry: HistoryEntry, messages: dict[str, Any], version: Version) -> str:
    if entry["status"]["status_str"] == "success":
        return "completed"
    return "cancelled" if version.cancels_jobs and "execution_interrupted" in messages else "failed"


def _about(extra_data: dict[str, Any]) -> tuple[int | None, str | None]:
    """Returns the creation time in ms and the id of the workflow."""
    workflow = extra_data.get("extra_pnginfo", {}).get("workflow", {})
    return extra_data.get("create_time"), workflow.get("id")


def _files(outputs: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields (node id, media type, entry) of each output file."""
    for node_id, shown in outputs.items():
        for media_type, entries in shown.items():
            if media_type == "animated":
                continue
            for entry in entries:
                if isinstance(entry, dict):
                    yield node_id, media_type, entry


def _is_previewable(file: tuple[str, str, dict[str, Any]]) -> bool:
    _, media_type, entry = file
    return (
        media_type in ("images", "video", "audio", "3d", "text")
        or entry.get("format", "").startswith(("video/", "audio/"))
        or entry.get("filename", "").lower().endswith(_MODELS_3D + _TEXTS)
    )


def _preview(
    files: list[tuple[str, str, dict[str, Any]]], outputs: dict[str, Any], version: Version
) -> Job | None:
    """Returns the output that stands for the job: a saved file before a temporary one, a text last."""
    previewable = [file for file in files if _is_previewable(file)]
    pictures = [file for file in previewable if not _is_text(file)]
    saved = [file for file in pictures if file[2].get("type") == "output"]
    best = next(iter([*saved, *pictures, *previewable]), None)
    if best is None:
        return _text_preview(outputs) if version.cancels_jobs else None
    node_id, media_type, entry = best
    return {**entry, "nodeId": node_id, "mediaType": entry.get("mediaType", media_type)}


def _is_text(file: tuple[str, str, dict[str, Any]]) -> bool:
    return file[1] == "text" or file[2].get("filename", "").lower().endswith(_TEXTS)


def _text_preview(outputs: dict[str, Any]) -> Job | None:
    for node_id, shown in outputs.items():
        for text in shown.get("text", []):
            is_long = len(str(text)) > _LONGEST_TEXT
            cut = {"truncated": True} if is_long else {}
            return {"content": str(text)[:_LONGEST_TEXT], **cut, "nodeId": node_id, "mediaType": "text"}
    return None


def _integer(query: dict[str, str], name: str) -> int | None:
    try:
        return int(query[name]) if name in query else None
    except ValueError as error:
        raise InvalidQuery(f"{name} must be an integer") from error


def _creation(job: Job) -> int:
    return int(job.get("create_time", 0))


def _duration(job: Job) -> int:
    start, end = job.get("execution_start_time", 0), job.get("execution_end_time", 0)
    return int(end - start) if start and end else 0


def _without_none(job: Job) -> Job:
    return {key: value for key, value in job.items() if value is not None}
