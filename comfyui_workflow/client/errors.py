"""What can go wrong for a client, besides what `comfyui_workflow.errors` has: sentences with a `code`.

WorkflowError
├── ServerUnreachable       no server of ours answers there, now
├── RequestRefused          the server says no: `code` and `status` are its own
├── RunFailed, RunCancelled the run ended otherwise than hoped; `progress` tells all of it
├── TimedOut                waiting took longer than was allowed; what was waited for goes on. A TimeoutError
└── ComfyUIError
    └── PromptInterrupted   somebody interrupted the prompt, or removed it from the queue
"""

from typing import TYPE_CHECKING

from comfyui_workflow.errors import ComfyUIError, WorkflowError

if TYPE_CHECKING:
    from comfyui_workflow.client.documents import ProgressDocument

GATEWAY_STATUSES = (502, 503, 504)
"""A proxy says that the server is away; or the server, in words of its own, that the instance is."""


class ServerUnreachable(WorkflowError):
    code = "server_unreachable"
    is_transient = True


class RequestRefused(WorkflowError):
    """The server answered, and the answer is no. `code` is the server's, `status` that of HTTP."""

    def __init__(self, message: str, *, code: str, status: int) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class RunFailed(WorkflowError):
    """`code` is the run's own, as in docs/api/workflow.md."""

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
