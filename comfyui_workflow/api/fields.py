"""Fields of a request, read one way by every API. Raises: InvalidRequest, naming the field."""

import re
from typing import Any

from flask import request

from comfyui_workflow.errors import InvalidRequest


def json_body() -> dict[str, Any]:
    """A page of another site can send any content type but JSON without being asked first."""
    if not request.content_length and "Transfer-Encoding" not in request.headers:
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


def text(body: dict[str, Any], field: str) -> str | None:
    value = body.get(field)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{field} must be a text")
    if value is not None and not value.isascii() and not is_unicode(value):
        raise InvalidRequest(f"{field} is not valid Unicode")
    return value and value.strip()


def is_unicode(words: str) -> bool:
    """JSON can escape half of a character, which no file system, SSH server or record takes."""
    return not any("\ud800" <= letter <= "\udfff" for letter in words)


def integer(body: dict[str, Any], field: str, default: int, least: int, most: int) -> int:
    value = body.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidRequest(f"{field} must be a whole number from {least} to {most}")
    return value


def flag(body: dict[str, Any], field: str) -> bool:
    value = body.get(field, False)
    if not isinstance(value, bool):
        raise InvalidRequest(f"{field} must be true or false")
    return value


def number(given: str, field: str, least: int, most: int) -> int:
    if not re.fullmatch("[0-9]{1,9}", given) or not least <= int(given) <= most:
        raise InvalidRequest(f"{field} must be a whole number from {least} to {most}")
    return int(given)
