"""Trying again what can pass: refused, reset, timed out, ComfyUI still starting.

retry_transient(action, *, should_stop, on_retry=None, total_s=120.0) -> what action() returns
    Raises the last error; errors.Stopped as soon as `should_stop()` says so.
    on_retry(error, attempt, wait_s) is called before each wait (attempt counts from 1).
"""

from collections.abc import Callable
from typing import TypeVar

from comfyui_workflow.errors import WorkflowError

R = TypeVar("R")
OnRetry = Callable[[WorkflowError, int, float], None]


def retry_transient(
    action: Callable[[], R],
    *,
    should_stop: Callable[[], bool],
    on_retry: OnRetry | None = None,
    total_s: float = 120.0,
) -> R:
    raise NotImplementedError
