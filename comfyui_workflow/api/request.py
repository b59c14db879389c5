"""Parses the body and the query of a request, in the same way for every API. Every function raises
InvalidRequest, which names the field."""

import re
from typing import Any

from flask import request

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.parsing.fields import (
    flag,
    integer,
    is_valid_unicode,
    refuse_unknown_fields,
    remote_dir,
    text,
)

__all__ = [
    "flag",
    "integer",
    "is_valid_unicode",
    "json_body",
    "number",
    "optional_json_body",
    "refuse_unknown_fields",
    "remote_dir",
    "switch",
    "text",
]


def json_body() -> dict[str, Any]:
    """Returns the JSON object of the body. Requires the content type `application/json`: a page of another
    site can send the other common types without a CORS preflight."""
    if _has_no_body():
        raise InvalidRequest("Request body is required")
    if not request.is_json:
        raise InvalidRequest("Content-Type must be application/json")
    try:
        body = request.get_json(silent=True)
    except RecursionError:
        body = None
    if body is None:
        raise InvalidRequest("Request body is not valid JSON")
    if not isinstance(body, dict):
        raise InvalidRequest("Request body must be a JSON object")
    return body


def optional_json_body() -> dict[str, Any]:
    """Returns the JSON object of the body; `{}` without a body."""
    return {} if _has_no_body() else json_body()


def switch(given: str, field: str) -> bool:
    if given not in ("true", "false"):
        raise InvalidRequest(f"{field} must be true or false")
    return given == "true"


def number(given: str, field: str, least: int, most: int) -> int:
    if not re.fullmatch("[0-9]{1,9}", given) or not least <= int(given) <= most:
        raise InvalidRequest(f"{field} must be a whole number from {least} to {most}")
    return int(given)


def _has_no_body() -> bool:
    return not request.content_length and "Transfer-Encoding" not in request.headers
