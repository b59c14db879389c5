"""`list`, `cancel`, `retry`, `priority` and `outputs`: runs that a server looks after."""

import json

import click

from comfyui_workflow.cli.messages import say, say_where
from comfyui_workflow.cli.options import HIGHEST_PRIORITY, json_option
from comfyui_workflow.cli.run_text import plain
from comfyui_workflow.cli.servers import running_server, server_option
from comfyui_workflow.client.documents import SummaryDocument
from comfyui_workflow.runs.status import RunStatus

_COLOURS = {RunStatus.COMPLETED: "green", RunStatus.FAILED: "red", RunStatus.CANCELLED: "yellow"}
_ID_WIDTH, _STATUS_WIDTH = 41, 9


@click.command("list")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="How many at most.")
@click.option(
    "--status",
    "statuses",
    type=click.Choice([status.value for status in RunStatus]),
    multiple=True,
    help="Of this status alone. May be repeated.",
)
@click.option("--name", help="With this in the name of the workflow.")
@click.option("--instance", help="Of this instance: its name or its id.")
@click.option("--batch", help="Of this batch: its id.")
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
        is_narrowed = any((statuses, name, instance, batch))
        say("No run is like that." if is_narrowed else "There are no runs yet.")
    for run in runs:
        click.echo(_line(run))


@click.command()
@click.argument("workflow_id")
@server_option
def cancel(*, workflow_id: str, server: str | None) -> None:
    """Cancel a run: its prompt is dropped from the queue, or interrupted."""
    with running_server(server) as client:
        say(plain(client.cancel(workflow_id)))


@click.command()
@click.argument("workflow_id")
@server_option
def retry(*, workflow_id: str, server: str | None) -> None:
    """Take up a failed run where it failed, and fetch what is missing. Nothing is run on the GPU again."""
    with running_server(server) as client:
        say(plain(client.retry(workflow_id)))
    say(f"Follow it with: comfyui-workflow watch {workflow_id}")


@click.command(context_settings={"ignore_unknown_options": True})  # -5 is a number here
@click.argument("workflow_id")
@click.argument("priority", type=click.IntRange(-HIGHEST_PRIORITY, HIGHEST_PRIORITY))
@server_option
def priority(*, workflow_id: str, priority: int, server: str | None) -> None:
    """Have a run that waits go before those of a lower PRIORITY: -1000 to 1000, 0 is usual."""
    with running_server(server) as client:
        say(plain(client.prioritize(workflow_id, priority)))


@click.command()
@click.argument("workflow_id")
@server_option
@json_option
def outputs(*, workflow_id: str, server: str | None, as_json: bool) -> None:
    """Print where the outputs of a run are, one a line."""
    with running_server(server) as client:
        documents = client.outputs(workflow_id)
        if as_json:
            click.echo(json.dumps([document.raw for document in documents], indent=2))
        else:
            say_where(client, workflow_id, enumerate(documents))


def _line(run: SummaryDocument) -> str:
    """Columns that a person reads and a script can cut; the name comes last, since it may hold anything."""
    ordered_at = run.queue_time.astimezone().strftime("%Y-%m-%d %H:%M")
    state = click.style(f"{run.status.value:{_STATUS_WIDTH}}", fg=_COLOURS.get(run.status, "cyan"))
    outcome = f"{run.output_count} output{'' if run.output_count == 1 else 's'}"
    detail = outcome if run.status.is_finished else f"{run.progress_percent:.0f} %"
    return f"{run.workflow_id:{_ID_WIDTH}}  {ordered_at}  {state}  {detail:10}  {plain(run.workflow_name)}"
