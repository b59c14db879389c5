"""Errors in the words of comfyui-api."""

from flask import Response, jsonify, request
from werkzeug.exceptions import HTTPException

from comfyui_workflow.api.error_responses import keep_headers, status_of
from comfyui_workflow.errors import CustomWorkflowNotFound, InvalidRequest, WorkflowError

BAD_REQUEST = "Bad Request"
NO_SAVE_NODE = 'Prompt must contain a node with a "filename_prefix" input, such as "SaveImage"'
NOT_MADE = "Failed to generate workflow prompt"
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


class InvalidWorkflowRequest(InvalidRequest):
    """The body of a custom workflow does not have the types of its schema. `location` is a path in the body:
    `/input/steps`."""

    def __init__(self, message: str, location: str) -> None:
        super().__init__(message)
        self.location = location


class PromptNotRun(WorkflowError):
    """A synchronous prompt has failed; its message is that of comfyui-api, with the reason."""


def error_response(error: WorkflowError) -> Response:
    match error:
        case InvalidBody():
            return _answer(400, error=BAD_REQUEST)
        case InvalidWorkflowRequest():
            return invalid_body(f"body{error.location} {error}")
        case InvalidPart():
            return _answer(400, error=str(error), location=error.location)
        case PromptNotRun():
            return server_failure(str(error))
    return _by_status(error)


def _by_status(error: WorkflowError) -> Response:
    if isinstance(error, CustomWorkflowNotFound):
        return _no_route()
    status = status_of(error)
    if status == 500:
        return server_failure(str(error))
    return _answer(status, error=str(error))


def http_error_response(error: HTTPException) -> Response:
    status = error.code or 500
    message = error.description or error.name
    if status == 404:
        response = _no_route()
    elif status == 400:
        response = _answer(400, error=BAD_REQUEST)
    else:
        response = _answer(status, statusCode=status, error=error.name, message=message)
    keep_headers(error, response)
    return response


def _no_route() -> Response:
    message = f"Route {request.method}:{request.path} not found"
    return _answer(404, statusCode=404, error="Not Found", message=message)


def server_failure(message: str) -> Response:
    return _answer(500, statusCode=500, error="Internal Server Error", message=message)


def invalid_body(message: str) -> Response:
    """The answer of Fastify to a body that does not fit the schema of its route: `body/id Required`."""
    return _answer(400, statusCode=400, code="FST_ERR_VALIDATION", error=BAD_REQUEST, message=message)


def _answer(status: int, **fields: object) -> Response:
    response = jsonify(**fields)
    response.status_code = status
    return response
