"""The commands: `python -m comfyui_workflow`, and the console script `comfyui-workflow`."""

import click

from comfyui_workflow import __version__
from comfyui_workflow.cli.lazy_group import CommandSource, LazyGroup
from comfyui_workflow.cli.options import EXIT_CODES_HELP


def _source(target: str, summary: str) -> CommandSource:
    module, _, attribute = target.partition(":")
    return CommandSource(module=f"{__name__}.{module}", attribute=attribute, summary=summary)


COMMANDS = {
    "serve": _source("serve:serve", "Serve the API until Ctrl-C."),
    "demo": _source("demo:demo", "Run a demo on this machine, without a GPU."),
    "run": _source("run:run", "Run WORKFLOW on an instance and fetch its outputs."),
    "validate": _source("validate:validate", "Check that an instance can run WORKFLOW."),
    "convert": _source("convert:convert", "Convert WORKFLOW to API format."),
    "list": _source("runs:list_runs", "List runs, newest first."),
    "watch": _source("run:watch", "Show the progress of a run until it ends."),
    "cancel": _source("runs:cancel", "Cancel a run."),
    "retry": _source("runs:retry", "Retry a failed run from the step that failed."),
    "priority": _source("runs:priority", "Change the priority of a waiting run."),
    "outputs": _source("runs:outputs", "List the output files of a run."),
    "batch": _source("batch:batch", "Run WORKFLOW many times with different inputs."),
    "batches": _source("batches:batches", "Manage batches."),
    "workflows": _source("workflows:workflows", "List and run the custom workflows of the server."),
    "instances": _source("instances:instances", "Manage named instances."),
    "hosts": _source("hosts:hosts", "Manage known host keys."),
    "sandbox": _source("serve:sandbox", "Run a simulated GPU instance until Ctrl-C."),
}


@click.group(cls=LazyGroup, sources=COMMANDS, epilog=EXIT_CODES_HELP)
@click.version_option(__version__)
def main() -> None:
    """Run ComfyUI workflows on rented GPUs over SSH and download every output."""
