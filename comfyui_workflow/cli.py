"""The commands: `python -m comfyui_workflow`."""

import click

from comfyui_workflow.errors import WorkflowError
from comfyui_workflow.serving import configure_logging
from comfyui_workflow.serving import serve as serve_until_signal
from comfyui_workflow.settings import load_settings


@click.group()
def main() -> None:
    """Runs ComfyUI workflows on rented GPUs over SSH, and brings every picture home."""


@main.command()
def serve() -> None:
    """Serve the API until Ctrl-C. Settings come from COMFYUI_WORKFLOW_* variables."""
    from app import create_server  # noqa: PLC0415 - the parts are joined only where they are needed

    try:
        settings = load_settings()
        configure_logging(settings.log_level)
        serve_until_signal(create_server(settings), settings, _say_ready)
    except WorkflowError as error:
        raise click.ClickException(str(error)) from error


def _say_ready(url: str, resumed: int) -> None:
    click.echo(f"Serving on {url}")
    if resumed:
        click.echo(f"Taking up {resumed} unfinished run{'s' if resumed > 1 else ''}")
