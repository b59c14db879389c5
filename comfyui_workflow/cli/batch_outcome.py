"""Follows a batch, and prints its outcome, or advice after Ctrl-C."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import click

from comfyui_workflow.cli.batch_displays import batch_display
from comfyui_workflow.cli.batch_follow import RunNames, follow_batch
from comfyui_workflow.cli.batch_text import batch_table, end_sentence, failure_lines, notice_lines
from comfyui_workflow.cli.exit_codes import interruption_code
from comfyui_workflow.cli.messages import say
from comfyui_workflow.cli.run_text import plain
from comfyui_workflow.cli.screen import print_table
from comfyui_workflow.cli.servers import ReachedServer, server_argument
from comfyui_workflow.client.batch_documents import BatchOutputDocument, BatchProgressDocument
from comfyui_workflow.runs.status import RunStatus


def follow_to_end(ctx: click.Context, reached: ReachedServer, batch_id: str) -> BatchProgressDocument:
    """Follows the batch until it ends. Exits the command after Ctrl-C."""
    runs = reached.client.batches.summary(batch_id).workflows
    try:
        with batch_display(RunNames(runs)) as shown:
            return follow_batch(reached.client, batch_id, shown, first_run=runs[0].workflow_id)
    except KeyboardInterrupt as interruption:
        say(_interrupted_message(reached, batch_id))
        ctx.exit(interruption_code(interruption))


def conclude_batch(reached: ReachedServer, progress: BatchProgressDocument, *, as_json: bool) -> None:
    """Prints a table of the runs on stdout, and messages for the user on stderr."""
    batches = reached.client.batches
    summary, outputs = batches.summary(progress.batch_id), batches.outputs(progress.batch_id)
    if as_json:
        click.echo(json.dumps({**summary.raw, "outputs": [output.raw for output in outputs]}, indent=2))
        return
    names = RunNames(summary.workflows)
    print_table(batch_table(summary.workflows, outputs, names))
    say(f"{plain(progress.batch_name)}: {end_sentence(progress)}")
    for sentence in (*failure_lines(progress, names), *notice_lines(progress, names)):
        say(f"! {sentence}")
    _print_directory(reached, progress.batch_id, outputs)
    if progress.count(RunStatus.FAILED):
        say(_advice(reached, progress))


def _print_directory(reached: ReachedServer, batch_id: str, outputs: Sequence[BatchOutputDocument]) -> None:
    paths = [output.local_path for output in outputs if output.local_path]
    if not paths:
        return
    files = f"{len(paths)} file{'' if len(paths) == 1 else 's'}"
    directory = os.path.commonpath([Path(path).parent for path in paths])
    machine = "" if reached.client.is_on_this_machine else f" on the machine at {reached.client.url}"
    command = f"comfyui-workflow batches outputs {batch_id}{server_argument(reached)}"
    say(f"{files} in {directory}{machine}. List them with: {command}")


def _advice(reached: ReachedServer, progress: BatchProgressDocument) -> str:
    where = server_argument(reached)
    if not progress.can_retry:
        listed = f"comfyui-workflow list --status failed --batch {progress.batch_id}{where}"
        return f"To list the failed runs: {listed}"
    first = "start comfyui-workflow serve, then: " if reached.is_own else ""
    return f"To retry the failed runs: {first}comfyui-workflow batches retry {progress.batch_id}{where}"


def _interrupted_message(reached: ReachedServer, batch_id: str) -> str:
    if reached.is_own:
        return (
            f"Stopped watching and serving. The batch {batch_id} is saved: submitted prompts continue on the "
            "instances. To continue the batch, start a server: comfyui-workflow serve"
        )
    where = server_argument(reached)
    return (
        f"Stopped watching. The batch continues at {reached.client.url}.\n"
        f"  to watch it:   comfyui-workflow batches watch {batch_id}{where}\n"
        f"  to cancel it:  comfyui-workflow batches cancel {batch_id}{where}"
    )
