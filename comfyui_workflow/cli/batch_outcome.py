"""A batch that is watched: what is said when it has ended, or when the user has seen enough."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import click

from comfyui_workflow.cli.batch_displays import batch_display
from comfyui_workflow.cli.batch_follow import RunNames, follow_batch
from comfyui_workflow.cli.batch_text import batch_table, end_sentence, failure_lines
from comfyui_workflow.cli.exit_codes import interruption_code
from comfyui_workflow.cli.messages import say
from comfyui_workflow.cli.run_text import plain
from comfyui_workflow.cli.screen import print_table
from comfyui_workflow.cli.servers import ReachedServer, server_words
from comfyui_workflow.client.batch_documents import BatchOutputDocument, BatchProgressDocument
from comfyui_workflow.runs.status import RunStatus


def follow_to_end(ctx: click.Context, reached: ReachedServer, batch_id: str) -> BatchProgressDocument:
    """Exits by itself when the user has seen enough."""
    runs = reached.client.batches.summary(batch_id).workflows
    try:
        with batch_display(RunNames(runs)) as shown:
            return follow_batch(reached.client, batch_id, shown, first_run=runs[0].workflow_id)
    except KeyboardInterrupt as interruption:
        say(_farewell(reached, batch_id))
        ctx.exit(interruption_code(interruption))


def conclude_batch(reached: ReachedServer, progress: BatchProgressDocument, *, as_json: bool) -> None:
    """What became of each run on stdout; what a person should know on stderr."""
    batches = reached.client.batches
    summary, outputs = batches.summary(progress.batch_id), batches.outputs(progress.batch_id)
    if as_json:
        click.echo(json.dumps({**summary.raw, "outputs": [output.raw for output in outputs]}, indent=2))
        return
    names = RunNames(summary.workflows)
    print_table(batch_table(summary.workflows, outputs, names))
    say(f"{plain(progress.batch_name)}: {end_sentence(progress)}")
    for sentence in failure_lines(progress, names):
        say(f"! {sentence}")
    _say_where(reached, progress.batch_id, outputs)
    if progress.count(RunStatus.FAILED):
        say(_advice(reached, progress))


def _say_where(reached: ReachedServer, batch_id: str, outputs: Sequence[BatchOutputDocument]) -> None:
    here = [output.local_path for output in outputs if output.local_path]
    if not here:
        return
    files = f"{len(here)} file{'' if len(here) == 1 else 's'}"
    directory = os.path.commonpath([Path(path).parent for path in here])
    whose = "" if reached.client.is_on_this_machine else f" of the machine at {reached.client.url}"
    paths = f"comfyui-workflow batches outputs {batch_id}{server_words(reached)}"
    say(f"{files} in {directory}{whose}. Their paths: {paths}")


def _advice(reached: ReachedServer, progress: BatchProgressDocument) -> str:
    where = server_words(reached)
    if not progress.can_retry:
        listed = f"comfyui-workflow list --status failed --batch {progress.batch_id}{where}"
        return f"All that failed: {listed}"
    first = "start comfyui-workflow serve, then: " if reached.is_own else ""
    return f"To go on where they failed: {first}comfyui-workflow batches retry {progress.batch_id}{where}"


def _farewell(reached: ReachedServer, batch_id: str) -> str:
    if reached.is_own:
        return (
            f"Stopped watching and serving. The batch {batch_id} is kept: what was submitted goes on at the "
            "instances, and the next start takes it up again (comfyui-workflow serve)."
        )
    where = server_words(reached)
    return (
        f"Stopped watching. The batch goes on at {reached.client.url}.\n"
        f"  watch it:   comfyui-workflow batches watch {batch_id}{where}\n"
        f"  cancel it:  comfyui-workflow batches cancel {batch_id}{where}"
    )
