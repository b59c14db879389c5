"""`batches`: lists, shows, watches, cancels and retries the batches of a server."""

import json

import click

from comfyui_workflow.cli.batch import EXIT_CODES
from comfyui_workflow.cli.batch_outcome import conclude_batch, follow_to_end
from comfyui_workflow.cli.batch_text import COLOURS, counts_sentence
from comfyui_workflow.cli.exit_codes import outcome_code, sigterm_as_interrupt
from comfyui_workflow.cli.messages import print_locations, say
from comfyui_workflow.cli.options import json_option
from comfyui_workflow.cli.run_text import plain
from comfyui_workflow.cli.servers import ReachedServer, running_server, server_option
from comfyui_workflow.client.batch_documents import BatchProgressDocument

_ID_WIDTH, _STATUS_WIDTH = 30, 9

_batch_argument = click.argument("batch_id")


@click.group()
def batches() -> None:
    """Manage batches: groups of runs that were started with `batch`."""


@batches.command("list")
@click.option(
    "--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="Maximum number of batches."
)
@server_option
@json_option
def list_batches(*, limit: int, server: str | None, as_json: bool) -> None:
    """List batches, newest first."""
    with running_server(server) as client:
        found = client.batches.all(limit)
    if as_json:
        click.echo(json.dumps([batch.raw for batch in found], indent=2))
        return
    if not found:
        say("There are no batches yet. To start one: comfyui-workflow batch --help")
    for batch in found:
        click.echo(_line(batch))


@batches.command()
@_batch_argument
@server_option
@json_option
def show(*, batch_id: str, server: str | None, as_json: bool) -> None:
    """Show the state and the outputs of each run of a batch."""
    with running_server(server) as client:
        reached = ReachedServer(client=client, is_own=False, named_url=server)
        conclude_batch(reached, client.batches.progress(batch_id), as_json=as_json)


@batches.command(epilog=EXIT_CODES)
@_batch_argument
@server_option
@json_option
@click.pass_context
def watch(ctx: click.Context, *, batch_id: str, server: str | None, as_json: bool) -> None:
    """Show the progress of a batch until it ends."""
    with sigterm_as_interrupt(), running_server(server) as client:
        reached = ReachedServer(client=client, is_own=False, named_url=server)
        finished = follow_to_end(ctx, reached, batch_id)
        conclude_batch(reached, finished, as_json=as_json)
    ctx.exit(outcome_code(finished.status))


@batches.command()
@_batch_argument
@server_option
def cancel(*, batch_id: str, server: str | None) -> None:
    """Cancel all unfinished runs of a batch."""
    with running_server(server) as client:
        say(f"Cancelling {_runs(client.batches.cancel(batch_id))}")


@batches.command()
@_batch_argument
@server_option
def retry(*, batch_id: str, server: str | None) -> None:
    """Retry the failed runs of a batch from the step that failed. No prompt is executed again."""
    with running_server(server) as client:
        retried = client.batches.retry(batch_id)
    say(f"Retrying {_runs(retried)}. Follow the batch with: comfyui-workflow batches watch {batch_id}")


@batches.command()
@_batch_argument
@server_option
@json_option
def outputs(*, batch_id: str, server: str | None, as_json: bool) -> None:
    """List the output files of a batch: one path or URL per line, in the order of the runs."""
    with running_server(server) as client:
        documents = client.batches.outputs(batch_id)
        if as_json:
            click.echo(json.dumps([document.raw for document in documents], indent=2))
            return
        for document in documents:
            print_locations(client, document.workflow_id, [(document.number, document)])


def _line(batch: BatchProgressDocument) -> str:
    """Formats a line with fixed columns. The name comes last, because it may contain any text."""
    ordered_at = batch.queue_time.astimezone().strftime("%Y-%m-%d %H:%M")
    state = click.style(f"{batch.status.value:{_STATUS_WIDTH}}", fg=COLOURS.get(batch.status, "cyan"))
    counts = counts_sentence(batch)
    return f"{batch.batch_id:{_ID_WIDTH}}  {ordered_at}  {state}  {counts:24}  {plain(batch.batch_name)}"


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"
