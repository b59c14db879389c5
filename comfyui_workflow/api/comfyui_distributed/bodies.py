"""Bodies of requests."""

from typing import Any

from comfyui_workflow.api.request import json_value
from comfyui_workflow.errors import InvalidRequest

NO_OBJECT = "Expected a JSON object body"


def body_of_request(no_object: str = NO_OBJECT) -> dict[str, Any]:
    """Returns the JSON object of the body. `no_object`: the message about another value.
    Raises: InvalidRequest."""
    try:
        body = json_value()
    except InvalidRequest as error:
        raise InvalidRequest(f"Invalid JSON payload: {error}") from error
    if not isinstance(body, dict):
        raise InvalidRequest(no_object)
    return body


def required_worker_id() -> str:
    """Returns the field `worker_id` of the body. Raises: InvalidRequest."""
    worker_id = str(body_of_request().get("worker_id") or "").strip()
    if not worker_id:
        raise InvalidRequest("Missing required field(s): worker_id")
    return worker_id
