"""Errors in the words of ComfyUI-Distributed: `{"error": …}`, or `{"errors": […]}` for several."""

from collections.abc import Sequence

from flask import Response, jsonify, request
from werkzeug.exceptions import HTTPException

from comfyui_workflow.api.error_responses import keep_headers, status_of
from comfyui_workflow.errors import InvalidRequest, WorkflowError


class InvalidEnvelope(InvalidRequest):
    """A result of a worker has wrong fields: one message for each."""

    def __init__(self, messages: Sequence[str]) -> None:
        super().__init__("; ".join(messages))
        self.messages = tuple(messages)


class InvalidConfig(InvalidEnvelope):
    """A configuration has wrong fields."""


class Missing(InvalidRequest):
    """A worker, a job or a file of the request does not exist: status 404."""


class Undecodable(InvalidRequest):
    """The content of a result cannot be decoded: status 500, as in the plugin."""


def error_response(error: WorkflowError) -> Response:
    match error:
        case InvalidConfig():
            return _answer(400, {"status": "error", "error": list(error.messages), "message": str(error)})
        case InvalidEnvelope():
            return _answer(400, {"errors": list(error.messages)})
        case Missing():
            return _answer(404, {"error": str(error)})
        case Undecodable():
            return _answer(500, {"error": str(error)})
    return _answer(status_of(error), {"error": str(error)})


def http_error_response(error: HTTPException) -> Response:
    status = error.code or 500
    message = f"There is no {request.method} {request.path}" if status == 404 else error.description
    response = _answer(status, {"error": message or error.name})
    keep_headers(error, response)
    return response


def _answer(status: int, document: dict[str, object]) -> Response:
    response = jsonify(document)
    response.status_code = status
    return response
