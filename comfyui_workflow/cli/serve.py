"""`serve` and `sandbox`: commands that run until Ctrl-C."""

from typing import Any

import click

from comfyui_workflow.server.memory import collect_no_garbage


@click.command()
@click.option("--host", help="Address to listen on. Any address except loopback needs an API token.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 chooses a free port.")
def serve(**options: Any) -> None:
    """Serve the API until Ctrl-C. Options override the COMFYUI_WORKFLOW_* environment variables."""
    collect_no_garbage()
    from comfyui_workflow.app import create_server  # noqa: PLC0415 - slow to import
    from comfyui_workflow.server import http  # noqa: PLC0415

    http.main(create_server, **{name: value for name, value in options.items() if value is not None})


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    short_help="Run a simulated GPU instance until Ctrl-C.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def sandbox(ctx: click.Context, *, arguments: tuple[str, ...]) -> None:
    """Passes its arguments to `python -m comfyui_workflow.sandbox`."""
    from comfyui_workflow.sandbox.__main__ import main  # noqa: PLC0415 - slow to import

    main(list(arguments), prog_name=ctx.command_path)
