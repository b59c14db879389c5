"""Errors in the words of comfyui-api."""

from flask import Response, jsonify, request
from werkzeug.exceptions import HTTPException

from comfyui_workflow.api.error_responses import keep_headers, status_of
from comfyui_workflow.errors import InvalidRequest, WorkflowError

BAD_REQUEST = "Bad Request"
NO_SAVE_NODE = 'Prompt must contain a node with a "filename_prefix" input, such as "SaveImage"'
NOT_QUEUED = "Failed to queue prompt"
NOT_UPLOADED = "Failed to upload outputs"
NO_OUTPUTS = "Failed to get prompt outputs"


class InvalidBody(InvalidRequest):
    """The body does not have the types of the schema. comfyui-api says only `Bad Request`."""


class InvalidPart(InvalidRequest):
    """A part of the prompt cannot be used. `location` is its path in the body: `prompt.1.inputs.image`."""

    def __init__(self, message: str, location: str) -> None:
        super().__init__(message)
        self.location = location


class PromptNotRun(WorkflowError):
    """A synchronous prompt has failed; its message is that of comfyui-api, with the reason."""


def error_response(error: WorkflowError) -> Response:
    match error:
        case InvalidBody():
            return _answer(400, error=BAD_REQUEST)
        case InvalidPart():
            return _answer(400, error=str(error), location=error.location)
        case PromptNotRun():
            return server_failure(str(error))
    status = status_of(error)
    if status == 500:
        return server_failure(str(error))
    return _answer(status, error=str(error))


def http_error_response(error: HTTPException) -> Response:
    status = error.code or 500
    message = error.description or error.name
    if status == 404:
        message = f"Route {request.method}:{request.path} not found"
    if status == 400:
        response = _answer(400, error=BAD_REQUEST)
    else:
        response = _answer(status, statusCode=status, error=error.name, message=message)
    keep_headers(error, response)
    return response


def server_failure(message: str) -> Response:
    return _answer(500, statusCode=500, error="Internal Server Error", message=message)


def missing_id() -> Response:
    """The answer of Fastify to a body without `id`."""
    return _answer(
        400, statusCode=400, code="FST_ERR_VALIDATION", error=BAD_REQUEST, message="body/id Required"
    )


def _answer(status: int, **fields: object) -> Response:
    response = jsonify(**fields)
    response.status_code = status
    return response
