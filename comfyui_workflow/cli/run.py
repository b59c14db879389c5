"""`run` and `watch`: start a run, or attach to one, and show its progress until it ends."""

import json
from pathlib import Path
from typing import Any

import click

from comfyui_workflow.cli.exit_codes import (
    interruption_code,
    outcome_code,
    sigterm_as_interrupt,
)
from comfyui_workflow.cli.follow import follow
from comfyui_workflow.cli.input_values import read_values, seed_mode_option, set_option
from comfyui_workflow.cli.messages import print_locations, say
from comfyui_workflow.cli.options import (
    EXIT_CODES_HELP,
    comfy_api_key_option,
    comfyui_port_option,
    convert_option,
    input_option,
    json_option,
    output_dir_option,
    partial_option,
    previews_option,
    priority_option,
    provision_option,
    spread_option,
    ssh_option,
    upload_option,
    webhook_option,
    workflow_argument,
)
from comfyui_workflow.cli.own_server import running_or_own_server
from comfyui_workflow.cli.screen import display
from comfyui_workflow.cli.servers import (
    ReachedServer,
    running_server,
    server_argument,
    server_option,
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
@upload_option
@click.option("--name", help="Name of the run. Default: the file name of the workflow.")
@comfyui_port_option
@previews_option
@convert_option
@provision_option
@spread_option
@partial_option
@priority_option
@comfy_api_key_option
@webhook_option
@server_option
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    *,
    workflow: Path | str,
    ssh_connection: str,
    images: tuple[Path | str, ...],
    settings: tuple[str, ...],
    seed_mode: str,
    output_dir: Path | None,
    upload: str | None,
    name: str | None,
    comfyui_port: int | None,
    previews: bool,
    convert: dict[str, Any] | None,
    provision: bool,
    spread: int | None,
    partial: str | None,
    priority: int | None,
    comfy_api_key: str | None,
    webhook: str | None,
    server: str | None,
    as_json: bool,
) -> None:
    """Run WORKFLOW on an instance and fetch its outputs.

    WORKFLOW is a file that the ComfyUI editor saved or exported, or a picture, video or sound that ComfyUI
    made; or the URL of such a file.

    The run continues on the server when this command ends. If no server is running (and none is named), this
    command starts its own server until the run is finished.
    """
    order = Order(
        workflow=workflow,
        ssh_connection=ssh_connection,
        input_images=images,
        inputs=read_values(settings),
        seed_mode=seed_mode,
        output_dir=output_dir,
        upload=upload,
        workflow_name=name,
        comfyui_port=comfyui_port,
        include_previews=previews,
        convert=convert,
        provision=provision,
        spread=spread,
        partial=partial,
        priority=priority,
        comfy_org_api_key=comfy_api_key,
        webhook=webhook,
    )
    with sigterm_as_interrupt(), running_or_own_server(server) as reached:
        if reached.is_own:
            say("No server is running, so this command runs its own server until the run is finished.")
        workflow_id = reached.client.execute(**order).workflow_id
        say(f"Run {workflow_id}")
        progress = follow_run(ctx, reached, workflow_id)
        conclude(reached, progress, as_json=as_json)
    ctx.exit(outcome_code(progress.status))


@click.command(epilog=EXIT_CODES_HELP)
@click.argument("workflow_id")
@server_option
@json_option
@click.pass_context
def watch(ctx: click.Context, *, workflow_id: str, server: str | None, as_json: bool) -> None:
    """Show the progress of a run until it ends."""
    with sigterm_as_interrupt(), running_server(server) as client:
        reached = ReachedServer(client=client, is_own=False, named_url=server)
        progress = follow_run(ctx, reached, workflow_id)
        conclude(reached, progress, as_json=as_json)
    ctx.exit(outcome_code(progress.status))


def follow_run(ctx: click.Context, reached: ReachedServer, workflow_id: str) -> ProgressDocument:
    """Follows the run until it ends. Exits the command after Ctrl-C."""
    try:
        with display() as shown:
            return follow(reached.client, workflow_id, shown)
    except KeyboardInterrupt as interruption:
        say(_interrupted_message(reached, workflow_id))
        ctx.exit(interruption_code(interruption))


def _interrupted_message(reached: ReachedServer, workflow_id: str) -> str:
    if reached.is_own:
        return (
            f"Stopped watching and serving. The run {workflow_id} is saved: a submitted prompt continues on "
            "the instance. To continue the run, start a server: comfyui-workflow serve"
        )
    return (
        f"Stopped watching. The run continues at {reached.client.url}.\n"
        f"  to watch it:   comfyui-workflow watch {workflow_id}{server_argument(reached)}\n"
        f"  to cancel it:  comfyui-workflow cancel {workflow_id}{server_argument(reached)}"
    )


def conclude(reached: ReachedServer, progress: ProgressDocument, *, as_json: bool) -> None:
    """Prints the outputs on stdout, one per line, and messages for the user on stderr."""
    if as_json:
        click.echo(json.dumps(progress.raw, indent=2))
        return
    print_locations(reached.client, progress.workflow_id, enumerate(progress.outputs))
    if progress.status is RunStatus.COMPLETED and not progress.outputs:
        say("The run made no outputs.")
    if progress.can_retry:
        say(_retry_advice(reached, progress))


def _retry_advice(reached: ReachedServer, progress: ProgressDocument) -> str:
    first = "start comfyui-workflow serve, then: " if reached.is_own else ""
    where = server_argument(reached)
    return f"To retry the run: {first}comfyui-workflow retry {progress.workflow_id}{where}"
