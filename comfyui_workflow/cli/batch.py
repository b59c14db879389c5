"""`batch`: orders many runs of a workflow at once and follows them until they end."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from comfyui_workflow.cli.batch_files import collect_files, urls_in
from comfyui_workflow.cli.batch_outcome import conclude_batch, follow_to_end
from comfyui_workflow.cli.batch_rows import Rows, combined_rows, read_body, read_rows
from comfyui_workflow.cli.exit_codes import outcome_code, sigterm_as_interrupt
from comfyui_workflow.cli.input_values import read_values, seed_mode_option, set_option
from comfyui_workflow.cli.messages import say
from comfyui_workflow.cli.options import (
    SSH_HELP,
    SSH_METAVAR,
    absolute_key_files,
    comfy_api_key_option,
    comfyui_port_option,
    convert_option,
    existing_file,
    existing_workflow,
    input_option,
    json_option,
    output_dir_option,
    partial_option,
    previews_option,
    priority_option,
    provision_option,
    spread_option,
    upload_option,
    webhook_option,
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
  0    all runs completed and their outputs are saved
  1    a run failed
  2    the request was refused: a wrong option, file, workflow or id
  3    no run failed, but one was cancelled
  4    no server answers
  130  interrupted by Ctrl-C; the batch continues
"""
_ALLOWED_WITH_BODY = {"rows", "comfy_api_key", "detach", "server", "as_json"}
_REFUSED_RUN = re.compile(r"run ([0-9]+): (.*)", re.DOTALL)


@click.command(epilog=EXIT_CODES)
@click.argument("workflow", type=existing_workflow, required=False)
@click.option("--ssh", "ssh_connection", metavar=SSH_METAVAR, callback=absolute_key_files, help=SSH_HELP)
@click.option(
    "--rows",
    type=existing_file,
    help="Table with one row for each run: CSV, XLSX, XLS or ODS with input names in the header, or JSON "
    "with a list of objects (JSONL: an object on each line). A cell gets the type of its input; -1 draws a "
    "seed. An empty cell sets nothing. Name a file, or a directory of frames, by its "
    "local path.",
)
@click.option(
    "--vary",
    metavar="NODE.INPUT=V1,V2",
    multiple=True,
    help="Run every combination of values, instead of --rows. 3.seed=1..4 is four seeds; 6.text=@prompts.txt "
    "reads one value from each line. Can be repeated.",
)
@input_option
@set_option
@seed_mode_option
@output_dir_option
@upload_option
@click.option("--name", help="Name of the batch. Default: the file name of the workflow.")
@click.option(
    "--stagger",
    type=click.FloatRange(0, 86_400),
    help="Minimum number of seconds between the starts of two runs.",
)
@click.option("--stop-on-error", is_flag=True, help="Cancel the waiting runs when a run fails.")
@spread_option
@partial_option
@priority_option
@comfyui_port_option
@previews_option
@convert_option
@provision_option
@comfy_api_key_option
@webhook_option
@click.option("--detach", is_flag=True, help="Start the batch, print its id and exit.")
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
    **options: Any,
) -> None:
    """Run WORKFLOW many times with different inputs: the rows of a table, or combinations of values.

    \b
      comfyui-workflow batch cat.json --ssh any --rows prompts.csv
      comfyui-workflow batch cat.json --ssh any --vary 3.seed=1..4 --vary "6.text=a cat,a dog"

    The server accepts either all runs or none. They continue on the server when this command ends. If no
    server is running (and none is named), this command starts its own server until the batch is finished.

    --rows can also name a JSON file with the body of POST /comfyui/workflow/batch. Such a file describes the
    whole batch, so it cannot be combined with WORKFLOW or with options that describe runs.
    """
    order = _whole_batch(ctx, rows, options["comfy_api_key"]) or _varied_batch(rows, vary, options)
    with sigterm_as_interrupt(), _server(server, detach=detach) as reached:
        if reached.is_own:
            say("No server is running, so this command runs its own server until the batch is finished.")
        started = order(reached.client)
        if detach:
            click.echo(json.dumps(started.raw, indent=2) if as_json else started.batch_id)
            return
        say(f"Batch {started.batch_id}: {len(started.workflow_ids)} runs")
        finished = follow_to_end(ctx, reached, started.batch_id)
        conclude_batch(reached, finished, as_json=as_json)
    ctx.exit(outcome_code(finished.status))


def _whole_batch(ctx: click.Context, rows: Path | None, api_key: str | None) -> Ordering | None:
    """Returns the order of a whole-batch file; None if the file is a table. The API key is for the runs
    that have none in the file. Raises: InvalidRequest."""
    body = read_body(rows) if rows else None
    if body is None:
        return None
    others = [
        parameter
        for parameter in ctx.command.params
        if ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        and parameter.name not in _ALLOWED_WITH_BODY
    ]
    if others:
        name = others[0].opts[0] if isinstance(others[0], click.Option) else "WORKFLOW"
        raise InvalidRequest(f"{rows} describes the whole batch: leave out {name}")
    with_key = _with_api_key(body, api_key)
    return lambda client: client.batches.send(with_key)


def _with_api_key(body: dict[str, Any], api_key: str | None) -> dict[str, Any]:
    if api_key is None:
        return body
    if not isinstance(body.get("runs"), list):
        return {"comfy_org_api_key": api_key, **body}
    runs = [_with_api_key(run, api_key) if isinstance(run, dict) else run for run in body["runs"]]
    return {**body, "runs": runs}


def _varied_batch(rows: Path | None, vary: tuple[str, ...], options: dict[str, Any]) -> Ordering:
    """Returns the order of one workflow with different inputs. Raises: InvalidRequest."""
    for name, option in (("workflow", "WORKFLOW"), ("ssh_connection", "--ssh")):
        if options[name] is None:
            raise InvalidRequest(f"{option} is missing")
    if bool(rows) is bool(vary):
        raise InvalidRequest("Give either --rows or --vary: they say how the runs differ")
    given = read_rows(rows) if rows else combined_rows(vary)
    directories = [Path(), *([rows.parent] if rows else [])]
    values, files = collect_files(given.values, directories)
    order = BatchOrder(**_order(options), rows=values)
    order["input_images"] = list(
        dict.fromkeys([*options["images"], *files, *urls_in(values)])
    )  # rows name these

    def ask(client: WorkflowServer) -> BatchStartedDocument:
        try:
            return client.batches.order(**order)
        except RequestRefused as refusal:
            raise _with_row(refusal, given) from refusal

    return ask


def _order(options: dict[str, Any]) -> BatchOrder:
    output_dir: Path | None = options["output_dir"]
    return BatchOrder(
        workflow=options["workflow"],
        ssh_connection=options["ssh_connection"],
        inputs=read_values(options["settings"]),
        seed_mode=options["seed_mode"],
        output_dir=output_dir,
        upload=options["upload"],
        comfyui_port=options["comfyui_port"],
        include_previews=options["previews"],
        convert=options["convert"],
        provision=options["provision"],
        spread=options["spread"],
        partial=options["partial"],
        priority=options["priority"],
        comfy_org_api_key=options["comfy_api_key"],
        webhook=options["webhook"],
        batch_name=options["name"],
        stagger_s=options["stagger"] or 0,
        on_error=(OnError.STOP if options["stop_on_error"] else OnError.CONTINUE).value,
    )


def _with_row(refusal: RequestRefused, rows: Rows) -> RequestRefused:
    """Replaces the run number of the server (from 0) with the location of the row in the table."""
    parts = _REFUSED_RUN.fullmatch(str(refusal))
    if parts is None or int(parts[1]) >= len(rows.locations):
        return refusal
    sentence = f"{rows.locations[int(parts[1])]}: {parts[2]}"
    return RequestRefused(sentence, code=refusal.code, status=refusal.status)


@contextmanager
def _server(named_url: str | None, *, detach: bool) -> Iterator[ReachedServer]:
    """Yields the server. A detached batch needs a server that outlives this command.
    Raises: as `running_or_own_server`."""
    if not detach:
        with running_or_own_server(named_url) as reached:
            yield reached
        return
    with running_server(named_url) as client:
        yield ReachedServer(client=client, is_own=False, named_url=named_url)
