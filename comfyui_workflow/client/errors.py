"""Errors of the client, in addition to those of `comfyui_workflow.errors`: each has a message and a `code`.

WorkflowError
├── ServerUnreachable       no server of this program answers at the URL
├── RequestRefused          the server refused the request; `code` and `status` are those of the response
├── RunFailed, RunCancelled the run did not complete; `progress` is its last document
├── TimedOut                the timeout of a wait is over; the run or prompt continues. A TimeoutError
└── ComfyUIError
    └── PromptInterrupted   the prompt was interrupted, or removed from the queue
"""

from typing import TYPE_CHECKING

from comfyui_workflow.errors import ComfyUIError, WorkflowError

if TYPE_CHECKING:
    from comfyui_workflow.client.documents import ProgressDocument

GATEWAY_STATUSES = (502, 503, 504)
"""Sent by a proxy when the server is away, and by the server (then with a `code`) when the instance is."""


class ServerUnreachable(WorkflowError):
    """`may_have_arrived`: the server may have carried out the request."""

    code = "server_unreachable"
    is_transient = True

    def __init__(self, message: str, *, may_have_arrived: bool = False) -> None:
        super().__init__(message)
        self.may_have_arrived = may_have_arrived


class RequestRefused(WorkflowError):
    """The server refused the request. `code` is the code of the server, `status` the HTTP status."""

    def __init__(self, message: str, *, code: str, status: int) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class RunFailed(WorkflowError):
    """The run failed. `code` is the error code of the run (docs/api/workflow.md)."""

    code = "run_failed"

    def __init__(self, message: str, *, progress: "ProgressDocument") -> None:
        super().__init__(message)
        self.code = progress.error_code or self.code
        self.progress = progress


class RunCancelled(WorkflowError):
    code = "run_cancelled"

    def __init__(self, message: str, *, progress: "ProgressDocument") -> None:
        super().__init__(message)
        self.progress = progress


class TimedOut(WorkflowError, TimeoutError):
    code = "timed_out"


class PromptInterrupted(ComfyUIError):
    code = "prompt_interrupted"
