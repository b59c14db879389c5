"""Trying again what can pass: refused, reset, timed out, ComfyUI still starting.

retry_transient(action, *, should_stop, on_retry=None, total_s=120.0) -> what action() returns
    Raises the last error; Stopped as soon as `should_stop()` says so.
    on_retry(error, attempt, wait_s) is called before each wait (attempt counts from 1), so that a user can
    be told "connection refused, trying again".
"""

import random
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import TypeVar

from comfyui_workflow.errors import Stopped, WorkflowError

WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
JITTER = 0.3
WAKE_UP_S = 0.1

R = TypeVar("R")
OnRetry = Callable[[WorkflowError, int, float], None]


def retry_transient(
    action: Callable[[], R],
    *,
    should_stop: Callable[[], bool],
    on_retry: OnRetry | None = None,
    total_s: float = 120.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> R:
    """Calls `action` until it succeeds, fails for good, or would have to wait past `total_s` from the start.

    Only errors that say `is_transient` are tried again: never a refused key, never a changed host key.
    """
    deadline = clock() + total_s
    for attempt, wait_s in enumerate(_jittered_waits(), start=1):
        _refuse_if_stopped(should_stop)
        try:
            return action()
        except WorkflowError as error:
            if not error.is_transient or clock() + wait_s > deadline:
                raise
            if on_retry:
                on_retry(error, attempt, wait_s)
        _wait(wait_s, should_stop, clock, sleep)
    raise AssertionError("the waits never end")


def _jittered_waits() -> Iterator[float]:
    """Those who were cut off together must not come back together."""
    for wait_s in chain(WAITS_S, repeat(WAITS_S[-1])):
        yield wait_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - not a secret


def _wait(
    wait_s: float, should_stop: Callable[[], bool], clock: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    end = clock() + wait_s
    while (left_s := end - clock()) > 0:
        _refuse_if_stopped(should_stop)
        sleep(min(left_s, WAKE_UP_S))


def _refuse_if_stopped(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise Stopped("Stopped while trying again to reach the instance.")
