"""`batches`: what there is to say about the batches that a server looks after."""

import json

import click

from comfyui_workflow.cli.batch import EXIT_CODES
from comfyui_workflow.cli.batch_outcome import conclude_batch, follow_to_end
from comfyui_workflow.cli.batch_text import COLOURS, counts_sentence
from comfyui_workflow.cli.exit_codes import outcome_code, sigterm_as_interrupt
from comfyui_workflow.cli.messages import say, say_where
from comfyui_workflow.cli.options import json_option
from comfyui_workflow.cli.run_text import plain
from comfyui_workflow.cli.servers import ReachedServer, running_server, server_option
from comfyui_workflow.client.batch_documents import BatchProgressDocument

_ID_WIDTH, _STATUS_WIDTH = 30, 9

_batch_argument = click.argument("batch_id")


@click.group()
def batches() -> None:
    """Batches: many runs that were ordered at once (with `batch`)."""


@batches.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="How many at most.")
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
        say("There are no batches yet: comfyui-workflow batch --help")
    for batch in found:
        click.echo(_line(batch))


@batches.command()
@_batch_argument
@server_option
@json_option
def show(*, batch_id: str, server: str | None, as_json: bool) -> None:
    """Show what has become of each run of a batch."""
    with running_server(server) as client:
        reached = ReachedServer(client=client, is_own=False, named_url=server)
        conclude_batch(reached, client.batches.progress(batch_id), as_json=as_json)


@batches.command(epilog=EXIT_CODES)
@_batch_argument
@server_option
@json_option
@click.pass_context
def watch(ctx: click.Context, *, batch_id: str, server: str | None, as_json: bool) -> None:
    """Follow a batch to its end, from wherever it is."""
    with sigterm_as_interrupt(), running_server(server) as client:
        reached = ReachedServer(client=client, is_own=False, named_url=server)
        finished = follow_to_end(ctx, reached, batch_id)
        conclude_batch(reached, finished, as_json=as_json)
    ctx.exit(outcome_code(finished.status))


@batches.command()
@_batch_argument
@server_option
def cancel(*, batch_id: str, server: str | None) -> None:
    """Cancel all runs of a batch that are not finished."""
    with running_server(server) as client:
        say(f"Cancelling {_runs(client.batches.cancel(batch_id))}")


@batches.command()
@_batch_argument
@server_option
def retry(*, batch_id: str, server: str | None) -> None:
    """Take up failed runs where they failed. Nothing is run on a GPU again."""
    with running_server(server) as client:
        retried = client.batches.retry(batch_id)
    say(f"Taking up {_runs(retried)}. Follow them with: comfyui-workflow batches watch {batch_id}")


@batches.command()
@_batch_argument
@server_option
@json_option
def outputs(*, batch_id: str, server: str | None, as_json: bool) -> None:
    """Print where the outputs of a batch are, one a line, run by run."""
    with running_server(server) as client:
        documents = client.batches.outputs(batch_id)
        if as_json:
            click.echo(json.dumps([document.raw for document in documents], indent=2))
            return
        for document in documents:
            say_where(client, document.workflow_id, [(document.number, document)])


def _line(batch: BatchProgressDocument) -> str:
    """The name comes last, since it may hold anything."""
    ordered_at = batch.queue_time.astimezone().strftime("%Y-%m-%d %H:%M")
    state = click.style(f"{batch.status.value:{_STATUS_WIDTH}}", fg=COLOURS.get(batch.status, "cyan"))
    counts = counts_sentence(batch)
    return f"{batch.batch_id:{_ID_WIDTH}}  {ordered_at}  {state}  {counts:24}  {plain(batch.batch_name)}"


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"
