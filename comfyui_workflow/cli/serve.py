"""`serve` and `sandbox`: what stays until Ctrl-C."""

from typing import Any

import click


@click.command()
@click.option("--host", help="Address to listen on. Anything but loopback needs an API token.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.")
def serve(**options: Any) -> None:
    """Serve the API until Ctrl-C. Settings come from COMFYUI_WORKFLOW_* variables; options win."""
    from comfyui_workflow.app import create_server  # noqa: PLC0415 - only it needs what a server is made of
    from comfyui_workflow.server import http  # noqa: PLC0415

    http.main(create_server, **{name: value for name, value in options.items() if value is not None})


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    short_help="Be a rented GPU without a GPU, until Ctrl-C.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def sandbox(ctx: click.Context, *, arguments: tuple[str, ...]) -> None:
    """As `python -m comfyui_workflow.sandbox`."""
    from comfyui_workflow.sandbox.__main__ import main  # noqa: PLC0415 - only it needs the sandbox's libraries

    main(list(arguments), prog_name=ctx.command_path)
