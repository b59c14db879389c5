"""Exit codes of the commands, and the error message at the end of a command."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType
from typing import NoReturn

import click

from comfyui_workflow.cli.run_text import plain
from comfyui_workflow.client.errors import GATEWAY_STATUSES, RequestRefused, ServerUnreachable
from comfyui_workflow.errors import ConfigurationError, InvalidRequest, WorkflowError
from comfyui_workflow.runs.status import RunStatus
from comfyui_workflow.server_address import API_TOKEN, server_address

UNAUTHORIZED = 401


class ExitCode(IntEnum):
    COMPLETED = 0
    FAILED = 1
    REFUSED = 2
    CANCELLED = 3
    UNREACHABLE = 4
    INTERRUPTED = 130
    TERMINATED = 143


_OUTCOMES = {
    RunStatus.COMPLETED: ExitCode.COMPLETED,
    RunStatus.FAILED: ExitCode.FAILED,
    RunStatus.CANCELLED: ExitCode.CANCELLED,
}


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM: every `with` and `finally` block runs, as after Ctrl-C."""


def outcome_code(status: RunStatus) -> ExitCode:
    return _OUTCOMES[status]


def conclude_error(error: WorkflowError | KeyboardInterrupt) -> ExitCode:
    """Prints the error on stderr and returns the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return interruption_code(error)
    click.echo(f"Error: {plain(_sentence(error))}", err=True)
    return _error_code(error)


def _sentence(error: WorkflowError) -> str:
    """Returns the message of the error. For a missing or wrong API token it names the variable to set."""
    if not isinstance(error, RequestRefused) or error.status != UNAUTHORIZED:
        return str(error)
    if server_address().api_token is None:
        return f"The server needs its API token: set {API_TOKEN} to the token that it was started with"
    return (
        f"{API_TOKEN} is not the token of this server: set it to the token that the server was started with"
    )


def interruption_code(interruption: KeyboardInterrupt) -> ExitCode:
    return ExitCode.TERMINATED if isinstance(interruption, Terminated) else ExitCode.INTERRUPTED


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Turns SIGTERM into an exception in the block, so that child processes are ended and the cursor is
    restored."""
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _error_code(error: WorkflowError) -> ExitCode:
    match error:
        case ServerUnreachable():
            return ExitCode.UNREACHABLE
        case RequestRefused() if error.status in GATEWAY_STATUSES:
            return ExitCode.UNREACHABLE
        case InvalidRequest() | ConfigurationError():
            return ExitCode.REFUSED
        case RequestRefused() if error.status < 500:
            return ExitCode.REFUSED
    return ExitCode.FAILED


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated
