"""Reads exceptions from the log of ComfyUI (`/internal/logs/raw`)."""

import re

_RAISED = re.compile(r"^(\w[\w.]*(?:: .*)?)$", re.MULTILINE)
"""The line of a traceback that names the exception: the only one that is not indented."""


def worker_death(log: str) -> str | None:
    """Returns the exception that ended the worker thread; None if the log has no traceback of that."""
    _, died, trace = log.rpartition("(prompt_worker):")
    if not died:
        return None
    return _raised(trace) or "its log does not say why"


def request_failure(log: str) -> str | None:
    """Returns the exception that ended the newest request which ComfyUI answered with HTTP 500; None if the
    log has no traceback of one."""
    _, failed, trace = log.rpartition("Error handling request")
    _, has_trace, trace = trace.partition("Traceback (most recent call last):")
    return _raised(trace) if failed and has_trace else None


def _raised(trace: str) -> str | None:
    found = _RAISED.search(trace)
    return found[1] if found else None
