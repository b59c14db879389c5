"""`batch`: many runs of a workflow, ordered at once and followed to their end."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from comfyui_workflow.cli.batch_files import bring_files
from comfyui_workflow.cli.batch_outcome import conclude_batch, follow_to_end
from comfyui_workflow.cli.batch_rows import Rows, combined_rows, read_body, read_rows
from comfyui_workflow.cli.exit_codes import outcome_code, sigterm_as_interrupt
from comfyui_workflow.cli.input_values import read_values, seed_mode_option, set_option
from comfyui_workflow.cli.messages import say
from comfyui_workflow.cli.options import (
    SSH_HELP,
    SSH_METAVAR,
    comfyui_port_option,
    existing_file,
    input_option,
    json_option,
    output_dir_option,
    previews_option,
    priority_option,
)
from comfyui_workflow.cli.own_server import running_or_own_server
from comfyui_workflow.cli.servers import (
    ReachedServer,
    running_server,
    server_option,
)
from comfyui_workflow.client.batch_documents import BatchStartedDocument
from comfyui_workflow.client.errors import RequestRefused
from comfyui_workflow.client.orders import BatchOrder
from comfyui_workflow.client.server import WorkflowServer
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.runs.batch import OnError

Ordering = Callable[[WorkflowServer], BatchStartedDocument]

EXIT_CODES = """\b
Exit codes:
  0    all runs completed, their outputs are here
  1    a run failed
  2    the request was refused: a wrong option, file, workflow or id
  3    no run failed, but one was cancelled
  4    no server answers
  130  interrupted by Ctrl-C; the batch itself goes on
"""
_BESIDE_A_BODY = {"rows", "detach", "server", "as_json"}
_REFUSED_RUN = re.compile(r"run ([0-9]+): (.*)", re.DOTALL)


@click.command(epilog=EXIT_CODES)
@click.argument("workflow", type=existing_file, required=False)
@click.option("--ssh", "ssh_connection", metavar=SSH_METAVAR, help=SSH_HELP)
@click.option(
    "--rows",
    type=existing_file,
    help="The runs: a CSV file whose header names inputs, or JSON with a list of objects. Numbers, true and "
    "false are that, everything else is text; an empty cell sets nothing; pictures are named by their path.",
)
@click.option(
    "--vary",
    metavar="NODE.INPUT=V1,V2",
    multiple=True,
    help="Values to combine, instead of --rows: 3.seed=1..4 counts, 6.text=@prompts.txt has one a line. May "
    "be repeated.",
)
@input_option
@set_option
@seed_mode_option
@output_dir_option
@click.option("--name", help="What to call the batch. Otherwise the file name of the workflow.")
@click.option("--stagger", type=click.FloatRange(0, 86_400), help="Seconds between the starts of two runs.")
@click.option("--stop-on-error", is_flag=True, help="Once a run fails, cancel those that wait.")
@priority_option
@comfyui_port_option
@previews_option
@click.option("--detach", is_flag=True, help="Print the id of the batch and end.")
@server_option
@json_option
@click.pass_context
def batch(
    ctx: click.Context,
    /,
    *,
    rows: Path | None,
    vary: tuple[str, ...],
    detach: bool,
    server: str | None,
    as_json: bool,
    **said: Any,
) -> None:
    """Run WORKFLOW many times, once for each row of a table or each combination of values.

    \b
      comfyui-workflow batch cat.json --ssh any --rows prompts.csv
      comfyui-workflow batch cat.json --ssh any --vary 3.seed=1..4 --vary "6.text=a cat,a dog"

    All runs are handed to the server at once, or none of them, and go on there when this command ends. Where
    no server answers (and none is named) this command serves for itself until they are finished.

    --rows may also name a whole batch in JSON, as POST /comfyui/workflow/batch takes it; it comes alone.
    """
    order = _whole_batch(ctx, rows) or _varied_batch(rows, vary, said)
    with sigterm_as_interrupt(), _server(server, detach=detach) as reached:
        if reached.is_own:
            say("No server answers, so this command serves until the batch is finished.")
        started = order(reached.client)
        if detach:
            click.echo(json.dumps(started.raw, indent=2) if as_json else started.batch_id)
            return
        say(f"Batch {started.batch_id}: {len(started.workflow_ids)} runs")
        finished = follow_to_end(ctx, reached, started.batch_id)
        conclude_batch(reached, finished, as_json=as_json)
    ctx.exit(outcome_code(finished.status))


def _whole_batch(ctx: click.Context, rows: Path | None) -> Ordering | None:
    """None when the file is a table. Raises: InvalidRequest."""
    body = read_body(rows) if rows else None
    if body is None:
        return None
    others = [
        parameter
        for parameter in ctx.command.params
        if ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        and parameter.name not in _BESIDE_A_BODY
    ]
    if others:
        name = others[0].opts[0] if isinstance(others[0], click.Option) else "WORKFLOW"
        raise InvalidRequest(f"{rows} is a whole batch: it says all by itself, so leave out {name}")
    return lambda client: client.batches.send(body)


def _varied_batch(rows: Path | None, vary: tuple[str, ...], said: dict[str, Any]) -> Ordering:
    """Raises: InvalidRequest."""
    for name, option in (("workflow", "WORKFLOW"), ("ssh_connection", "--ssh")):
        if said[name] is None:
            raise InvalidRequest(f"{option} is missing")
    if bool(rows) is bool(vary):
        raise InvalidRequest("Give either --rows or --vary, to say what differs from run to run")
    given = read_rows(rows) if rows else combined_rows(vary)
    places = [Path(), *([rows.parent] if rows else [])]
    values, files = bring_files(given.values, places)
    order = BatchOrder(**_order(said), rows=values)
    order["input_images"] = list(dict.fromkeys([*said["images"], *files]))

    def ask(client: WorkflowServer) -> BatchStartedDocument:
        try:
            return client.batches.order(**order)
        except RequestRefused as refusal:
            raise _naming_row(refusal, given) from refusal

    return ask


def _order(said: dict[str, Any]) -> BatchOrder:
    output_dir: Path | None = said["output_dir"]
    return BatchOrder(
        workflow=said["workflow"],
        ssh_connection=said["ssh_connection"],
        inputs=read_values(said["settings"]),
        seed_mode=said["seed_mode"],
        output_dir=output_dir and output_dir.absolute(),
        comfyui_port=said["comfyui_port"],
        include_previews=said["previews"],
        priority=said["priority"],
        batch_name=said["name"],
        stagger_s=said["stagger"] or 0,
        on_error=(OnError.STOP if said["stop_on_error"] else OnError.CONTINUE).value,
    )


def _naming_row(refusal: RequestRefused, rows: Rows) -> RequestRefused:
    """The server counts runs from 0; a person looks for a row."""
    parts = _REFUSED_RUN.fullmatch(str(refusal))
    if parts is None or int(parts[1]) >= len(rows.places):
        return refusal
    sentence = f"{rows.places[int(parts[1])]}: {parts[2]}"
    return RequestRefused(sentence, code=refusal.code, status=refusal.status)


@contextmanager
def _server(named_url: str | None, *, detach: bool) -> Iterator[ReachedServer]:
    """Who leaves at once leaves it to a server that stays. Raises: as `running_or_own_server`."""
    if not detach:
        with running_or_own_server(named_url) as reached:
            yield reached
        return
    with running_server(named_url) as client:
        yield ReachedServer(client=client, is_own=False, named_url=named_url)
