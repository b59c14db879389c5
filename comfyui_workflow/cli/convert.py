"""`convert`: converts a workflow to a graph in API format."""

import json
from collections.abc import Iterable
from pathlib import Path

import click

from comfyui_workflow.cli.exit_codes import sigterm_as_interrupt
from comfyui_workflow.cli.input_values import read_values, seed_mode_option, set_option
from comfyui_workflow.cli.messages import say
from comfyui_workflow.cli.offline import read_definitions, read_workflow
from comfyui_workflow.cli.options import (
    SSH_METAVAR,
    absolute_key_files,
    comfyui_port_option,
    existing_file,
    workflow_argument,
)
from comfyui_workflow.cli.own_server import asking_server
from comfyui_workflow.cli.run_text import plain
from comfyui_workflow.cli.servers import server_option
from comfyui_workflow.client.orders import Order
from comfyui_workflow.errors import InvalidGraph, InvalidRequest
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.model import GraphRequest
from comfyui_workflow.workflows.resolve import left_out, needs_conversion, remote_routes
from comfyui_workflow.workflows.seed_mode import SeedMode

EXIT_CODES = """\b
Exit codes:
  0    the workflow was converted
  2    it cannot be converted; or an option, file or workflow is invalid
  4    the server or the instance cannot be reached
"""
UNKNOWN_CLASS = "missing_node_type"
LEFT_OUT = "browser_node_left_out"


@click.command(epilog=EXIT_CODES)
@workflow_argument
@click.option(
    "--ssh",
    "ssh_connection",
    metavar=SSH_METAVAR,
    callback=absolute_key_files,
    help="Instance that provides the node classes.",
)
@click.option(
    "--object-info",
    type=existing_file,
    help="File with the response to GET /object_info, instead of an instance.",
)
@set_option
@seed_mode_option
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the graph to this new file instead of stdout.",
)
@comfyui_port_option
@server_option
def convert(
    *,
    workflow: Path,
    ssh_connection: str | None,
    object_info: Path | None,
    settings: tuple[str, ...],
    seed_mode: str,
    output: Path | None,
    comfyui_port: int | None,
    server: str | None,
) -> None:
    """Convert WORKFLOW to API format, the graph that POST /prompt of ComfyUI accepts.

    Give either --ssh or --object-info. A file in API format is printed with its inputs set.
    """
    if (ssh_connection is None) is (object_info is None):
        raise InvalidRequest("Give either --ssh or --object-info: they provide the node classes")
    _refuse_existing(output)
    order = Order(
        workflow=workflow,
        ssh_connection=ssh_connection or "",
        inputs=read_values(settings),
        seed_mode=seed_mode,
        comfyui_port=comfyui_port,
    )
    request = _request(workflow, order)
    graph = (
        _convert_remotely(order, request, server)
        if object_info is None
        else _convert_offline(request, object_info)
    )
    _print(json.dumps(graph, indent=2), output)


def _request(workflow: Path, order: Order) -> GraphRequest:
    """Raises: InvalidRequest."""
    return GraphRequest(
        workflow=read_workflow(workflow),
        inputs=order["inputs"],
        seed_mode=SeedMode(order["seed_mode"] or SeedMode.SAVED),
    )


def _convert_offline(request: GraphRequest, object_info: Path) -> Graph:
    """Converts offline, with the node classes of a file. Raises: InvalidRequest."""
    from comfyui_workflow.execution.prepare import graph_for  # noqa: PLC0415 - slow to import

    definitions = read_definitions(object_info)
    for route in sorted(remote_routes(request, definitions)):
        say(f"Values from {plain(route)} stay as saved: only a running instance knows the choices.")
    for finding in left_out(request, definitions):
        say(plain(str(finding)))
    graph = graph_for(request, definitions, remote_choices={})
    if needs_conversion(request):
        found = [node["class_type"] for node in graph.values()]
        _refuse_unknown(name for name in found if name not in definitions)
    return graph


def _convert_remotely(order: Order, request: GraphRequest, server: str | None) -> Graph:
    """Converts with a server. Raises: RequestRefused, ServerUnreachable, InvalidRequest."""
    with sigterm_as_interrupt(), asking_server(server) as client:
        inspection = client.validate(**order)
    if needs_conversion(request):
        _refuse_unknown(each.class_type or "" for each in inspection.errors if each.code == UNKNOWN_CLASS)
    for warning in inspection.warnings:
        if warning.code == LEFT_OUT:
            say(plain(warning.message))
    return inspection.graph


def _refuse_unknown(class_types: Iterable[str]) -> None:
    """Refuses unknown node classes: without the class, the values in the file cannot be assigned to
    inputs."""
    unknown = list(dict.fromkeys(class_types))
    if unknown:
        raise InvalidGraph(
            "The workflow cannot be converted completely: this ComfyUI does not have the node "
            f"{'class' if len(unknown) == 1 else 'classes'} {', '.join(unknown)}"
        )


def _refuse_existing(output: Path | None) -> None:
    if output is not None and (output.exists() or output.is_symlink()):
        raise InvalidRequest(f"{output} exists already and is not overwritten: name a new file")


def _print(graph: str, output: Path | None) -> None:
    if output is None:
        click.echo(graph)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(f"{graph}\n")
    except OSError as error:
        raise InvalidRequest(f"{output} cannot be written: {error.strerror}") from error
    say(f"Wrote {output}")
