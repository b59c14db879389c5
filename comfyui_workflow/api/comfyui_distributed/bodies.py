"""Bodies of requests."""

from typing import Any

from comfyui_workflow.api.request import json_body
from comfyui_workflow.errors import InvalidRequest


def body_of_request() -> dict[str, Any]:
    """Returns the JSON object of the body. Raises: InvalidRequest."""
    try:
        return json_body()
    except InvalidRequest as error:
        raise InvalidRequest(f"Invalid JSON payload: {error}") from error


def required_worker_id() -> str:
    """Returns the field `worker_id` of the body. Raises: InvalidRequest."""
    worker_id = str(body_of_request().get("worker_id") or "").strip()
    if not worker_id:
        raise InvalidRequest("Missing required field(s): worker_id")
    return worker_id
