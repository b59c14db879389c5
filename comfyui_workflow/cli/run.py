"""`run` and `watch`: a run with its progress, to its end."""

import json
from pathlib import Path

import click

from comfyui_workflow.cli.exit_codes import (
    interruption_code,
    outcome_code,
    sigterm_as_interrupt,
)
from comfyui_workflow.cli.follow import follow
from comfyui_workflow.cli.input_values import read_values, seed_mode_option, set_option
from comfyui_workflow.cli.messages import say, say_where
from comfyui_workflow.cli.options import (
    EXIT_CODES_HELP,
    comfyui_port_option,
    input_option,
    json_option,
    output_dir_option,
    previews_option,
    priority_option,
    ssh_option,
    workflow_argument,
)
from comfyui_workflow.cli.own_server import running_or_own_server
from comfyui_workflow.cli.screen import display
from comfyui_workflow.cli.servers import (
    ReachedServer,
    running_server,
    server_option,
    server_words,
)
from comfyui_workflow.client.documents import ProgressDocument
from comfyui_workflow.client.orders import Order
from comfyui_workflow.runs.status import RunStatus


@click.command(epilog=EXIT_CODES_HELP)
@workflow_argument
@ssh_option
@input_option
@set_option
@seed_mode_option
@output_dir_option
@click.option("--name", help="What to call the run. Otherwise the file name of the workflow.")
@comfyui_port_option
@previews_option
@priority_option
@server_option
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    *,
    workflow: Path,
    ssh_connection: str,
    images: tuple[Path, ...],
    settings: tuple[str, ...],
    seed_mode: str,
    output_dir: Path | None,
    name: str | None,
    comfyui_port: int | None,
    previews: bool,
    priority: int | None,
    server: str | None,
    as_json: bool,
) -> None:
    """Run WORKFLOW on an instance, and fetch what it makes.

    WORKFLOW is a file as the ComfyUI editor saves or exports it, or a picture that ComfyUI made.

    The run is handed to the server, and goes on there when this command ends. Where no server answers (and
    none is named) this command serves for itself until the run is finished.
    """
    order = Order(
        workflow=workflow,
        ssh_connection=ssh_connection,
        input_images=images,
        inputs=read_values(settings),
        seed_mode=seed_mode,
        output_dir=output_dir and output_dir.absolute(),
        workflow_name=name,
        comfyui_port=comfyui_port,
        include_previews=previews,
        priority=priority,
    )
    with sigterm_as_interrupt(), running_or_own_server(server) as reached:
        if reached.is_own:
            say("No server answers, so this command serves until the run is finished.")
        workflow_id = reached.client.execute(**order).workflow_id
        say(f"Run {workflow_id}")
        progress = _follow(ctx, reached, workflow_id)
        conclude(reached, progress, as_json=as_json)
    ctx.exit(outcome_code(progress.status))


@click.command(epilog=EXIT_CODES_HELP)
@click.argument("workflow_id")
@server_option
@json_option
@click.pass_context
def watch(ctx: click.Context, *, workflow_id: str, server: str | None, as_json: bool) -> None:
    """Follow a run to its end, from wherever it is."""
    with sigterm_as_interrupt(), running_server(server) as client:
        reached = ReachedServer(client=client, is_own=False, named_url=server)
        progress = _follow(ctx, reached, workflow_id)
        conclude(reached, progress, as_json=as_json)
    ctx.exit(outcome_code(progress.status))


def _follow(ctx: click.Context, reached: ReachedServer, workflow_id: str) -> ProgressDocument:
    """Exits by itself when the user has seen enough."""
    try:
        with display() as shown:
            return follow(reached.client, workflow_id, shown)
    except KeyboardInterrupt as interruption:
        say(_farewell(reached, workflow_id))
        ctx.exit(interruption_code(interruption))


def _farewell(reached: ReachedServer, workflow_id: str) -> str:
    if reached.is_own:
        return (
            f"Stopped watching and serving. The run {workflow_id} is kept: what was submitted goes on at the "
            "instance, and the next start takes it up again (comfyui-workflow serve)."
        )
    return (
        f"Stopped watching. The run goes on at {reached.client.url}.\n"
        f"  watch it:   comfyui-workflow watch {workflow_id}{server_words(reached)}\n"
        f"  cancel it:  comfyui-workflow cancel {workflow_id}{server_words(reached)}"
    )


def conclude(reached: ReachedServer, progress: ProgressDocument, *, as_json: bool) -> None:
    """Outputs on stdout, one a line; what a person should know on stderr."""
    if as_json:
        click.echo(json.dumps(progress.raw, indent=2))
        return
    say_where(reached.client, progress.workflow_id, enumerate(progress.outputs))
    if progress.status is RunStatus.COMPLETED and not progress.outputs:
        say("The run made no outputs.")
    if progress.can_retry:
        say(_retry_advice(reached, progress))


def _retry_advice(reached: ReachedServer, progress: ProgressDocument) -> str:
    first = "start comfyui-workflow serve, then: " if reached.is_own else ""
    where = server_words(reached)
    return f"To go on where it failed: {first}comfyui-workflow retry {progress.workflow_id}{where}"
