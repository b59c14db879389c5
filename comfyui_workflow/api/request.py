"""Parses the body and the query of a request, in the same way for every API. Every function raises
InvalidRequest, which names the field."""

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, cast

from flask import request
from pydantic import BaseModel

from comfyui_workflow.api.operations import Operation
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.parsing.fields import (
    flag,
    integer,
    is_valid_unicode,
    refuse_unknown_fields,
    remote_dir,
    text,
)
from comfyui_workflow.parsing.json_text import parsed_json

__all__ = [
    "flag",
    "idempotency_key",
    "integer",
    "is_valid_unicode",
    "json_body",
    "json_value",
    "number",
    "optional_json_body",
    "refuse_unknown_fields",
    "refuse_unknown_parts",
    "remote_dir",
    "switch",
    "text",
]

_RAW, _VALUE = "comfyui_workflow.raw_body", "comfyui_workflow.body"
"""Keys in the WSGI environment of a request."""


def json_value() -> Any:
    """Returns the JSON value of the body. Requires the content type `application/json`: a page of another
    site can send the other common types without a CORS preflight."""
    if _has_no_body():
        raise InvalidRequest("Request body is required")
    if not request.is_json:
        raise InvalidRequest(
            'Content-Type must be application/json: with curl, -H "Content-Type: application/json"'
        )
    return _parsed_body()


def json_body(model: type[BaseModel] | None = None) -> dict[str, Any]:
    """Returns the JSON object of the body. With a model, other fields than those of the model are refused.
    Raises: InvalidRequest, also as `json_value`."""
    body = json_value()
    if body is None:
        raise InvalidRequest("Request body is not valid JSON: it is null")
    if not isinstance(body, dict):
        raise InvalidRequest("Request body must be a JSON object")
    if model is not None:
        refuse_unknown_fields(body, model.model_fields, "this request")
    return body


def optional_json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Returns the JSON object of the body; `{}` without a body."""
    return {} if _has_no_body() else json_body(model)


def refuse_unknown_parts(operation: Operation) -> None:
    """Refuses parameters of the query that the operation does not have, and fields of a body or form where it
    has none. Fields of a JSON body are checked where they are read (`json_body`)."""
    known = operation.query.model_fields if operation.query else {}
    refuse_unknown_fields(request.args, known, "this request", "parameter")
    if operation.upload is not None:
        refuse_unknown_fields(request.form, (operation.upload,), "this request")
    elif operation.body is None and request.is_json:
        refuse_unknown_fields(_fields_of_body(), (), "this request")


def idempotency_key(scope: str = "") -> str | None:
    """Returns the key of a request that may be sent again: the first 64 bits of a hash of the header, the
    scope and the body, so a request with another body does not match. None without the header. Call it before
    the body is parsed."""
    header = request.headers.get("Idempotency-Key")
    if not header:
        return None
    digest = sha256(f"{header}{scope}".encode() + b"\0")
    digest.update(_raw_body())
    return digest.hexdigest()[:16]


def switch(given: str, field: str) -> bool:
    if given not in ("true", "false"):
        raise InvalidRequest(f"{field} must be true or false")
    return given == "true"


def number(given: str, field: str, least: int, most: int) -> int:
    if not re.fullmatch("[0-9]{1,9}", given) or not least <= int(given) <= most:
        raise InvalidRequest(f"{field} must be a whole number from {least} to {most}")
    return int(given)


def _fields_of_body() -> Iterable[str]:
    """Returns nothing if the body is no JSON object."""
    try:
        body = _parsed_body()
    except InvalidRequest:
        return ()
    return body if isinstance(body, dict) else ()


def _parsed_body() -> Any:
    """Parses the body once. A large body does not stay in memory beside its value. Raises: InvalidRequest,
    with the reason; Flask says none, and knows no `charset`."""
    if _VALUE not in request.environ:
        charset = request.mimetype_params.get("charset")
        try:
            request.environ[_VALUE] = parsed_json(_raw_body(), charset)
        except ValueError as error:
            raise InvalidRequest(f"Request body is not valid JSON: {error}") from error
        except RecursionError as error:
            raise InvalidRequest("Request body is not valid JSON") from error
        del request.environ[_RAW]
    return request.environ[_VALUE]


def _raw_body() -> bytes:
    """Returns the body as it was sent, until it is parsed."""
    if _RAW not in request.environ:
        request.environ[_RAW] = request.stream.read()
    return cast("bytes", request.environ[_RAW])


def _has_no_body() -> bool:
    return not request.content_length and "Transfer-Encoding" not in request.headers
