"""`validate`: checks a workflow against an instance before it is run."""

import json
from pathlib import Path
from typing import Any

import click

from comfyui_workflow.cli.exit_codes import ExitCode, sigterm_as_interrupt
from comfyui_workflow.cli.input_values import read_values, set_option
from comfyui_workflow.cli.options import (
    comfy_api_key_option,
    comfyui_port_option,
    input_option,
    json_option,
    ssh_option,
    workflow_argument,
)
from comfyui_workflow.cli.order_options import credentials_option
from comfyui_workflow.cli.own_server import asking_server
from comfyui_workflow.cli.run_text import plain
from comfyui_workflow.cli.servers import server_option
from comfyui_workflow.client.documents import FindingDocument, InspectionDocument, MissingModelDocument
from comfyui_workflow.client.orders import Order
from comfyui_workflow.provisioning.sizes import size_text
from comfyui_workflow.workflows.findings import Severity

EXIT_CODES = """\b
Exit codes:
  0    the instance can run the workflow
  2    it cannot run it; or an option, file or workflow is invalid
  4    the server or the instance cannot be reached
"""
_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow"}


@click.command(epilog=EXIT_CODES)
@workflow_argument
@ssh_option
@input_option
@set_option
@credentials_option
@comfyui_port_option
@comfy_api_key_option
@server_option
@json_option
@click.pass_context
def validate(
    ctx: click.Context,
    *,
    workflow: Path | str,
    ssh_connection: str,
    input_images: tuple[Path | str, ...],
    settings: tuple[str, ...],
    credentials: list[Any] | None,
    comfyui_port: int | None,
    comfy_org_api_key: str | None,
    server: str | None,
    as_json: bool,
) -> None:
    """Check that an instance can run WORKFLOW, and list what is missing.

    Nothing is uploaded to the instance and nothing runs there.
    """
    order = Order(
        workflow=workflow,
        ssh_connection=ssh_connection,
        input_images=input_images,
        inputs=read_values(settings),
        credentials=credentials,
        comfyui_port=comfyui_port,
        comfy_org_api_key=comfy_org_api_key,
    )
    with sigterm_as_interrupt(), asking_server(server) as client:
        inspection = client.validate(**order)
    if as_json:
        click.echo(json.dumps(inspection.raw, indent=2))
    else:
        _say(inspection)
    ctx.exit(ExitCode.COMPLETED if inspection.valid else ExitCode.REFUSED)


def _say(inspection: InspectionDocument) -> None:
    for finding in (*inspection.errors, *inspection.warnings):
        click.echo(_line(finding))
    for model in inspection.missing:
        click.echo(_missing_line(model))
    for pack in inspection.missing_packs:
        where = (pack.url if pack.can_provide else pack.reason) or ""
        click.echo(f"missing node pack: {plain(pack.name)}: {plain(where)}")
    can_get_models = any(model.can_provide for model in inspection.missing)
    if can_get_models or any(pack.can_provide for pack in inspection.missing_packs):
        click.echo("To get what is missing on the instance: comfyui-workflow run --provision")
    click.echo(f"This instance {'can' if inspection.valid else 'cannot'} run it")


def _missing_line(model: MissingModelDocument) -> str:
    name = plain(model.name)
    if not model.can_provide:
        return f"missing: {name}: {plain(model.reason or 'it cannot be downloaded')}"
    size = "" if model.size_bytes is None else f" ({size_text(model.size_bytes)})"
    return f"missing: {name}{size}: {plain(model.url or '')}"


def _line(finding: FindingDocument) -> str:
    severity = click.style(finding.severity.value, fg=_COLOURS[finding.severity])
    return f"{severity}: {plain(finding.message)}"
