"""`instances provision`: follows the application of a manifest, and prints its result."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, NoReturn

import click

from comfyui_workflow.cli.exit_codes import ExitCode
from comfyui_workflow.cli.messages import say
from comfyui_workflow.cli.run_text import plain
from comfyui_workflow.client.errors import ServerUnreachable
from comfyui_workflow.client.instance_documents import (
    PlanItemDocument,
    ProvisionDocument,
    ProvisionStateDocument,
)
from comfyui_workflow.client.server import WorkflowServer
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.retry import Backoff

POLL_S = 0.5
PATIENCE_S = 120.0
"""The server may be restarted meanwhile: it continues."""
MOST_CHARACTERS = 2 * 1024 * 1024
_DONE = {
    "none": "is there",
    "install": "to be installed",
    "update": "to be updated",
    "download": "to be downloaded",
    "refused": "REFUSED",
}


def read_manifest_file(file: IO[str]) -> str:
    """Raises: InvalidRequest."""
    try:
        text = file.read(MOST_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{file.name} cannot be read: {error}") from error
    if len(text) > MOST_CHARACTERS:
        raise InvalidRequest(f"{file.name} is too large to be a manifest")
    return text


def follow_provision(
    client: WorkflowServer, instance: str, pause: Callable[[float], None] = time.sleep
) -> ProvisionStateDocument:
    """Prints the log while it grows, and returns the last state. Raises: RequestRefused; ServerUnreachable if
    the server is away for too long."""
    number, shown, backoff = 0, "", Backoff()
    while True:
        try:
            answer = client.instances.provision_state(instance, after=number)
            backoff.reset()
        except ServerUnreachable as error:
            wait_s = backoff.next_wait_s()
            if backoff.failing_for_s() > PATIENCE_S:
                raise
            say(f"{error}; trying again")
            pause(wait_s)
            continue
        provision = answer.provision
        if provision is None:
            return answer
        for line in provision.log:
            say(plain(line.text))
            number = max(number, line.number)
        shown = _show_activity(provision, shown)
        if not provision.is_running:
            return answer
        pause(POLL_S)


def conclude_provision(
    started: ProvisionStateDocument,
    ended: ProvisionStateDocument | None,
    lock_file: Path | None,
    *,
    as_json: bool,
) -> NoReturn:
    """Prints the plan or the result, saves the lock, and exits with a code. `ended` is None after a dry
    run."""
    if as_json:
        click.echo(json.dumps((ended or started).raw, indent=2))
    if ended is None:
        items = started.plan.items if started.plan is not None else ()
        for item in () if as_json else items:
            click.echo(plan_line(item))
        if started.plan is not None and started.plan.restarts:
            say("ComfyUI would be restarted, as soon as no prompt runs there")
        sys.exit(ExitCode.FAILED if any(item.action == "refused" for item in items) else ExitCode.COMPLETED)
    if lock_file is not None and _is_completed(ended):
        _save_lock(lock_file, ended)
    _exit(ended)


def plan_line(item: PlanItemDocument) -> str:
    found = f" ({plain(item.found)})" if item.found else ""
    reason = f": {plain(item.reason)}" if item.reason else ""
    return f"{item.kind:12} {plain(item.name)}: {_DONE.get(item.action, plain(item.action))}{found}{reason}"


def _show_activity(provision: ProvisionDocument, shown: str) -> str:
    """Prints the progress of a step on one line of a terminal; nowhere else."""
    activity = plain(provision.activity or "")
    if sys.stderr.isatty() and activity != shown:
        click.echo(f"\r\x1b[K{activity[:100]}", err=True, nl=False)
        if not activity:
            click.echo("\r\x1b[K", err=True, nl=False)
    return activity


def _is_completed(ended: ProvisionStateDocument) -> bool:
    return ended.provision is not None and ended.provision.status == "completed"


def _save_lock(file: Path, ended: ProvisionStateDocument) -> None:
    try:
        file.write_text(json.dumps(ended.lock, indent=2) + "\n")
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be written: {error.strerror}") from error
    say(f"Saved what is there: {file}")


def _exit(ended: ProvisionStateDocument) -> NoReturn:
    provision = ended.provision
    if provision is None or provision.status == "cancelled":
        say("Cancelled; what was done stays")
        sys.exit(ExitCode.CANCELLED)
    if provision.status == "failed":
        say(f"Error: {plain(provision.error or 'it failed')}")
        sys.exit(ExitCode.FAILED)
    say("The machine has everything that the manifest names")
    sys.exit(ExitCode.COMPLETED)
