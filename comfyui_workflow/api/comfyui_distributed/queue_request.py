"""Parses the body of `POST /distributed/queue`. The checks have the order and the messages of the plugin,
because its clients show them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.parsing.fields import is_valid_unicode
from comfyui_workflow.runs.parts import Partial

LONGEST_TRACE_ID = 128


@dataclass(frozen=True, kw_only=True)
class QueueRequest:
    prompt: Mapping[str, Any]
    """A graph in ComfyUI's API format, as given."""
    workflow: Any
    """Metadata of the editor, or None."""
    client_id: str
    worker_ids: tuple[str, ...]
    delegate_master: bool | None
    """None if the request does not say it: the setting decides."""
    trace_id: str | None
    partial: Partial
    """An addition to the plugin, which always keeps what it has."""


def read_queue_request(data: object) -> QueueRequest:
    """Raises: InvalidRequest."""
    if not isinstance(data, dict):
        raise InvalidRequest("Expected a JSON object body")
    if not isinstance(data.get("auto_prepare", True), bool):
        raise InvalidRequest("auto_prepare must be a boolean when provided")
    prompt, worker_ids = _prompt(data), _worker_ids(data)
    delegate_master = data.get("delegate_master")
    if delegate_master is not None and not isinstance(delegate_master, bool):
        raise InvalidRequest("delegate_master must be a boolean when provided")
    client_id = data.get("client_id")
    if not isinstance(client_id, str) or not client_id.strip() or not is_valid_unicode(client_id):
        raise InvalidRequest("client_id required")
    return QueueRequest(
        prompt=prompt,
        workflow=data.get("workflow"),
        client_id=client_id.strip(),
        worker_ids=worker_ids,
        delegate_master=delegate_master,
        trace_id=_trace_id(data.get("trace_execution_id")),
        partial=_partial(data.get("partial")),
    )


def _prompt(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the field `prompt`, or `workflow.prompt` where it is missing."""
    prompt, workflow = data.get("prompt"), data.get("workflow")
    if prompt is None and isinstance(workflow, dict):
        prompt = workflow.get("prompt")
    if not isinstance(prompt, dict):
        raise InvalidRequest("Field 'prompt' must be an object")
    return prompt


def _worker_ids(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns `enabled_worker_ids`, or the ids in `workers` where it is missing. An empty list is valid."""
    ids = data.get("enabled_worker_ids")
    if ids is None and (workers := data.get("workers")) is not None:
        if not isinstance(workers, list):
            raise InvalidRequest("Field 'workers' must be a list when provided")
        entries = [entry.get("id") if isinstance(entry, dict) else entry for entry in workers]
        ids = [entry for entry in entries if entry is not None]
    if ids is None:
        raise InvalidRequest("enabled_worker_ids required")
    if not isinstance(ids, list):
        raise InvalidRequest("enabled_worker_ids must be a list of worker IDs")
    return tuple(text for text in (str(each).strip() for each in ids) if text)


def _trace_id(given: object) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str):
        raise InvalidRequest("trace_execution_id must be a string when provided")
    text = given.strip()[:LONGEST_TRACE_ID]
    return text if text and text.isprintable() else None


def _partial(given: object) -> Partial:
    if given is None:
        return Partial.MOVE
    if given not in list(Partial):
        raise InvalidRequest(f"partial must be one of: {', '.join(Partial)}")
    return Partial(str(given))
