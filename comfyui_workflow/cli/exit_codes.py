"""How a command ends: its exit code, and a sentence where something went wrong."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType
from typing import Any, NoReturn

import click

from comfyui_workflow.cli.run_text import plain
from comfyui_workflow.client.calls import GATEWAY_STATUSES
from comfyui_workflow.client.errors import RequestRefused, ServerUnreachable
from comfyui_workflow.errors import ConfigurationError, InvalidRequest, WorkflowError
from comfyui_workflow.runs.model import RunStatus


class ExitCode(IntEnum):
    COMPLETED = 0
    FAILED = 1
    REFUSED = 2
    CANCELLED = 3
    UNREACHABLE = 4
    INTERRUPTED = 130
    TERMINATED = 143


EXIT_CODES_HELP = """\b
Exit codes:
  0    the run completed, its outputs are here
  1    the run failed
  2    the request was refused: a wrong option, file, workflow or id
  3    the run was cancelled
  4    no server answers
  130  interrupted by Ctrl-C; the run itself goes on
"""
_OUTCOMES = {
    RunStatus.COMPLETED: ExitCode.COMPLETED,
    RunStatus.FAILED: ExitCode.FAILED,
    RunStatus.CANCELLED: ExitCode.CANCELLED,
}


class Commands(click.Group):
    """A group whose commands may raise what this program raises."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except WorkflowError as error:
            click.echo(f"Error: {plain(str(error))}", err=True)
            ctx.exit(_error_code(error))
        except KeyboardInterrupt as interruption:
            ctx.exit(interruption_code(interruption))


class Terminated(KeyboardInterrupt):
    """SIGTERM: leaves every block as Ctrl-C does."""


def outcome_code(status: RunStatus) -> ExitCode:
    return _OUTCOMES[status]


def interruption_code(interruption: KeyboardInterrupt) -> ExitCode:
    return ExitCode.TERMINATED if isinstance(interruption, Terminated) else ExitCode.INTERRUPTED


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """So that what was started is ended and the cursor comes back."""
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
