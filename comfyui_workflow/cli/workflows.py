"""`workflows`: lists, shows and runs the custom workflows of a server."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from comfyui_workflow.cli.exit_codes import outcome_code, sigterm_as_interrupt
from comfyui_workflow.cli.input_values import text_of_file
from comfyui_workflow.cli.messages import say
from comfyui_workflow.cli.options import (
    EXIT_CODES_HELP,
    SSH_HELP,
    SSH_METAVAR,
    absolute_key_files,
    json_option,
)
from comfyui_workflow.cli.order_options import order_options, with_details
from comfyui_workflow.cli.own_server import asking_server, running_or_own_server
from comfyui_workflow.cli.run import conclude, follow_run
from comfyui_workflow.cli.run_text import plain
from comfyui_workflow.cli.servers import server_option
from comfyui_workflow.client.documents import CustomWorkflowDocument
from comfyui_workflow.client.orders import CustomOrder
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.files.spellings import existing_spelling

_name_argument = click.argument("name")


@click.group()
def workflows() -> None:
    """List and run the custom workflows of the server: the files in its WORKFLOW_DIR."""


@workflows.command("list")
@server_option
@json_option
def list_workflows(*, server: str | None, as_json: bool) -> None:
    """List the custom workflows."""
    with asking_server(server) as client:
        found = client.custom_workflows()
    if as_json:
        click.echo(json.dumps([each.raw for each in found], indent=2))
        return
    if not found:
        say("There are no custom workflows. The setting COMFYUI_WORKFLOW_WORKFLOW_DIR names their directory.")
    width = max((len(each.name) for each in found), default=0)
    for each in found:
        click.echo(f"{plain(each.name):{width}}  {plain(each.trouble or each.summary or '')}".rstrip())


@workflows.command()
@_name_argument
@server_option
@json_option
def show(*, name: str, server: str | None, as_json: bool) -> None:
    """Show the parameters of a custom workflow."""
    with asking_server(server) as client:
        found = client.custom_workflow(name)
    if as_json:
        click.echo(json.dumps(found.raw, indent=2))
        return
    for text in filter(None, (found.summary, found.description, found.trouble)):
        click.echo(plain(text))
    required = set((found.input_schema or {}).get("required", ()))
    for parameter, schema in _properties(found).items():
        click.echo(f"  --param {_parameter_line(parameter, schema, is_required=parameter in required)}")


@workflows.command("run", epilog=EXIT_CODES_HELP)
@_name_argument
@click.option(
    "--param",
    "params",
    metavar="NAME=VALUE",
    multiple=True,
    help="Set a parameter. prompt=@prompt.txt reads a file. Can be repeated; `workflows show` lists them.",
)
@click.option(
    "--ssh",
    "ssh_connection",
    metavar=SSH_METAVAR,
    default="any",
    show_default=True,
    callback=absolute_key_files,
    help=SSH_HELP,
)
@order_options
@click.option("--name", "workflow_name", help="Name of the run. Default: the name of the custom workflow.")
@server_option
@json_option
@click.pass_context
def run_workflow(
    ctx: click.Context,
    /,
    *,
    name: str,
    params: tuple[str, ...],
    server: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Run the custom workflow NAME and fetch its outputs.

    \b
      comfyui-workflow workflows run portrait --param "prompt=a lake" --param steps=20
    """
    with sigterm_as_interrupt(), running_or_own_server(server) as reached:
        if reached.is_own:
            say("No server is running, so this command runs its own server until the run is finished.")
        described = reached.client.custom_workflow(name)
        order = with_details(
            CustomOrder(
                input=read_params(params, described),
                ssh_connection=options["ssh_connection"],
                workflow_name=options["workflow_name"],
            ),
            options,
        )
        workflow_id = reached.client.run_custom(name, **order).workflow_id
        say(f"Run {workflow_id}")
        progress = follow_run(ctx, reached, workflow_id)
        conclude(reached, progress, as_json=as_json)
    ctx.exit(outcome_code(progress.status))


def read_params(params: Iterable[str], described: CustomWorkflowDocument) -> dict[str, Any]:
    """Returns the values by name, each with the type that the workflow declares; the server checks them.
    Raises: InvalidRequest."""
    properties, values = _properties(described), dict[str, Any]()
    for given in params:
        name, mark, value = given.partition("=")
        if not mark or not name:
            raise InvalidRequest(f"--param {given} must be NAME=VALUE")
        values[name] = _value(given, value, properties.get(name, {}))
    return values


def _value(given: str, value: str, schema: Mapping[str, Any]) -> Any:
    """Returns the text itself for a text, the path of a local file for a file, else the value as JSON."""
    if schema.get("format") == "file":
        path = Path(existing_spelling(value)).expanduser()
        return path if path.exists() else value
    if value.startswith("@"):
        value = text_of_file(f"--param {given}", value[1:])
    if schema.get("type") == "string":
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _properties(described: CustomWorkflowDocument) -> dict[str, dict[str, Any]]:
    found = (described.input_schema or {}).get("properties")
    properties = found if isinstance(found, dict) else {}
    return {name: each for name, each in properties.items() if isinstance(each, dict)}


def _parameter_line(name: str, schema: Mapping[str, Any], *, is_required: bool) -> str:
    kind = "file" if schema.get("format") == "file" else schema.get("type", "value")
    limits = [
        f"{word} {schema[key]}"
        for word, key in (("at least", "minimum"), ("at most", "maximum"))
        if key in schema
    ]
    if "enum" in schema:
        limits.append(f"one of {', '.join(map(str, schema['enum']))}")
    if is_required:
        limits.append("required")
    elif "default" in schema:
        limits.append(f"default {json.dumps(schema['default'], ensure_ascii=False)}")
    described = ", ".join([str(kind), *limits])
    text = schema.get("description") or schema.get("title")
    return plain(f"{name}=…  {described}" + (f": {text}" if isinstance(text, str) else ""))
