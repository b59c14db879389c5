"""`list`, `cancel`, `retry`, `priority` and `outputs`: commands for the runs of a server."""

import json

import click

from comfyui_workflow.cli.messages import print_locations, say
from comfyui_workflow.cli.options import HIGHEST_PRIORITY, json_option
from comfyui_workflow.cli.run_text import plain
from comfyui_workflow.cli.servers import running_server, server_option
from comfyui_workflow.client.documents import SummaryDocument
from comfyui_workflow.runs.status import RunStatus

_COLOURS = {RunStatus.COMPLETED: "green", RunStatus.FAILED: "red", RunStatus.CANCELLED: "yellow"}
_ID_WIDTH, _STATUS_WIDTH = 41, 9


@click.command("list")
@click.option(
    "--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="Maximum number of runs."
)
@click.option(
    "--status",
    "statuses",
    type=click.Choice([status.value for status in RunStatus]),
    multiple=True,
    help="Only runs with this status. Can be repeated.",
)
@click.option("--name", help="Only runs with this text in the workflow name.")
@click.option("--instance", help="Only runs on this instance (name or id).")
@click.option("--batch", help="Only runs of this batch (id).")
@server_option
@json_option
def list_runs(
    *,
    limit: int,
    statuses: tuple[str, ...],
    name: str | None,
    instance: str | None,
    batch: str | None,
    server: str | None,
    as_json: bool,
) -> None:
    """List runs, newest first."""
    with running_server(server) as client:
        runs = client.runs(limit, statuses=statuses, name=name, instance=instance, batch=batch)
    if as_json:
        click.echo(json.dumps([run.raw for run in runs], indent=2))
        return
    if not runs:
        has_filter = any((statuses, name, instance, batch))
        say("No run matches these options." if has_filter else "There are no runs yet.")
    for run in runs:
        click.echo(_line(run))


@click.command()
@click.argument("workflow_id")
@server_option
def cancel(*, workflow_id: str, server: str | None) -> None:
    """Cancel a run. Its prompt is removed from the queue, or interrupted if it is running."""
    with running_server(server) as client:
        say(plain(client.cancel(workflow_id)))


@click.command()
@click.argument("workflow_id")
@server_option
def retry(*, workflow_id: str, server: str | None) -> None:
    """Retry a failed run from the step that failed, and fetch missing outputs. No prompt is executed
    again."""
    with running_server(server) as client:
        say(plain(client.retry(workflow_id)))
    say(f"Follow it with: comfyui-workflow watch {workflow_id}")


@click.command(context_settings={"ignore_unknown_options": True})  # -5 is a number, not an option
@click.argument("workflow_id")
@click.argument("priority", type=click.IntRange(-HIGHEST_PRIORITY, HIGHEST_PRIORITY))
@server_option
def priority(*, workflow_id: str, priority: int, server: str | None) -> None:
    """Change the priority of a waiting run: -1000 to 1000, default 0. A higher priority starts first."""
    with running_server(server) as client:
        say(plain(client.prioritize(workflow_id, priority)))


@click.command()
@click.argument("workflow_id")
@server_option
@json_option
def outputs(*, workflow_id: str, server: str | None, as_json: bool) -> None:
    """List the output files of a run: one path or URL per line."""
    with running_server(server) as client:
        documents = client.outputs(workflow_id)
        if as_json:
            click.echo(json.dumps([document.raw for document in documents], indent=2))
        else:
            print_locations(client, workflow_id, enumerate(documents))


def _line(run: SummaryDocument) -> str:
    """Formats a line with fixed columns, for users and scripts. The name comes last, because it may contain
    any text."""
    ordered_at = run.queue_time.astimezone().strftime("%Y-%m-%d %H:%M")
    state = click.style(f"{run.status.value:{_STATUS_WIDTH}}", fg=_COLOURS.get(run.status, "cyan"))
    outcome = f"{run.output_count} output{'' if run.output_count == 1 else 's'}"
    detail = outcome if run.status.is_finished else f"{run.progress_percent:.0f} %"
    return f"{run.workflow_id:{_ID_WIDTH}}  {ordered_at}  {state}  {detail:10}  {plain(run.workflow_name)}"
