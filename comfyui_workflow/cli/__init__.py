"""The commands: `python -m comfyui_workflow`, and the console script `comfyui-workflow`."""

import click

from comfyui_workflow import __version__
from comfyui_workflow.cli.lazy_group import CommandSource, LazyGroup
from comfyui_workflow.cli.options import EXIT_CODES_HELP


def _source(place: str, summary: str) -> CommandSource:
    module, _, attribute = place.partition(":")
    return CommandSource(module=f"{__name__}.{module}", attribute=attribute, summary=summary)


COMMANDS = {
    "serve": _source("serve:serve", "Serve the API until Ctrl-C."),
    "demo": _source("demo:demo", "See a whole run on this machine: a sandbox is the rented GPU."),
    "run": _source("run:run", "Run WORKFLOW on an instance, and fetch what it makes."),
    "validate": _source("validate:validate", "Say whether an instance can run WORKFLOW, and what it lacks."),
    "convert": _source("convert:convert", "Print the graph that WORKFLOW becomes."),
    "list": _source("runs:list_runs", "List runs, newest first."),
    "watch": _source("run:watch", "Follow a run to its end, from wherever it is."),
    "cancel": _source("runs:cancel", "Cancel a run."),
    "retry": _source("runs:retry", "Take up a failed run where it failed."),
    "priority": _source("runs:priority", "Have a run that waits go before those of a lower PRIORITY."),
    "outputs": _source("runs:outputs", "Print where the outputs of a run are, one a line."),
    "batch": _source("batch:batch", "Run WORKFLOW many times, once for each row of a table."),
    "batches": _source("batches:batches", "Batches: many runs that were ordered at once."),
    "instances": _source("instances:instances", "Instances that have a name: which there are, what they do."),
    "hosts": _source("hosts:hosts", "Machines that are known by their host keys."),
    "sandbox": _source("serve:sandbox", "Be a rented GPU without a GPU, until Ctrl-C."),
}


@click.group(cls=LazyGroup, sources=COMMANDS, epilog=EXIT_CODES_HELP)
@click.version_option(__version__)
def main() -> None:
    """Runs ComfyUI workflows on rented GPUs over SSH, and brings every picture home."""
