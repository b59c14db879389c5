"""Errors of the native API as JSON: `{"success": false, "message": …, "code": …}` with the HTTP status of the
error."""

from flask import Response, jsonify
from werkzeug.exceptions import HTTPException

from comfyui_workflow.errors import (
    BatchNotFound,
    ComfyUIError,
    CustomWorkflowBroken,
    CustomWorkflowNotFound,
    DeliveryNotFound,
    HostKeyConflict,
    InstanceError,
    InstanceNotFound,
    InstancesFileBroken,
    InvalidRequest,
    JobNotFound,
    ProvisionFailed,
    RunConflict,
    RunNotFound,
    ServerBusy,
    Stopped,
    StoreError,
    WebError,
    WorkflowError,
)

STATUSES: tuple[tuple[type[WorkflowError], int], ...] = (
    (InvalidRequest, 400),
    (RunNotFound, 404),
    (BatchNotFound, 404),
    (DeliveryNotFound, 404),
    (JobNotFound, 404),
    (CustomWorkflowNotFound, 404),
    (CustomWorkflowBroken, 500),
    (RunConflict, 409),
    (ProvisionFailed, 409),
    (InstanceNotFound, 404),
    (HostKeyConflict, 409),
    (InstancesFileBroken, 409),
    (ServerBusy, 503),
    (StoreError, 507),
    (InstanceError, 502),
    (ComfyUIError, 502),
    (WebError, 502),
    (Stopped, 504),
)


def error_response(error: WorkflowError) -> Response:
    return failure(str(error), status_of(error), error.code)


def http_error_response(error: HTTPException) -> Response:
    code = "refused" if error.code in (401, 403) else "http"
    response = failure(error.description or error.name, error.code or 500, code)
    keep_headers(error, response)
    return response


def keep_headers(error: HTTPException, response: Response) -> None:
    """Copies the headers of the error that tell the client how to proceed: `Allow`, `Retry-After` and
    `WWW-Authenticate`."""
    error_headers = error.get_response().headers
    kept = ("Allow", "Retry-After", "WWW-Authenticate")
    response.headers.update({name: error_headers[name] for name in kept if name in error_headers})


def failure(message: str, status: int, code: str) -> Response:
    response = jsonify(success=False, message=message, code=code)
    response.status_code = status
    return response


def status_of(error: WorkflowError) -> int:
    return next((status for error_type, status in STATUSES if isinstance(error, error_type)), 500)
