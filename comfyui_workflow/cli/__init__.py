"""The commands: `python -m comfyui_workflow`, and the console script `comfyui-workflow`."""

import click

from comfyui_workflow import __version__
from comfyui_workflow.cli.batch import batch
from comfyui_workflow.cli.batches import batches
from comfyui_workflow.cli.convert import convert
from comfyui_workflow.cli.demo import demo
from comfyui_workflow.cli.exit_codes import EXIT_CODES_HELP, Commands
from comfyui_workflow.cli.hosts import hosts
from comfyui_workflow.cli.instances import instances
from comfyui_workflow.cli.run import run, watch
from comfyui_workflow.cli.runs import cancel, list_runs, outputs, priority, retry
from comfyui_workflow.cli.serve import sandbox, serve
from comfyui_workflow.cli.validate import validate


@click.group(cls=Commands, epilog=EXIT_CODES_HELP)
@click.version_option(__version__)
def main() -> None:
    """Runs ComfyUI workflows on rented GPUs over SSH, and brings every picture home."""


for _command in (
    serve,
    demo,
    run,
    validate,
    convert,
    watch,
    list_runs,
    cancel,
    retry,
    priority,
    outputs,
    batch,
    batches,
    instances,
    hosts,
    sandbox,
):
    main.add_command(_command)
