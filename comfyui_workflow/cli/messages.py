"""Output of the commands: messages on stderr, results for scripts on stdout."""

from collections.abc import Iterable

import click

from comfyui_workflow.cli.run_text import plain
from comfyui_workflow.client.documents import OutputDocument
from comfyui_workflow.client.server import WorkflowServer


def say(sentence: str = "") -> None:
    """Prints a message on stderr."""
    click.echo(sentence, err=True)


def print_locations(
    client: WorkflowServer, workflow_id: str, outputs: Iterable[tuple[int, OutputDocument]]
) -> None:
    """Prints where each output is (with its number in the run): a path if the server runs on this machine,
    else a URL."""
    for number, output in outputs:
        if not output.downloaded:
            say(f"Not fetched: {plain(output.filename)} ({plain(output.error or 'not yet')})")
        elif client.is_on_this_machine:
            click.echo(output.local_path)
        else:
            click.echo(client.output_url(workflow_id, number))
        if output.upload_url:
            say(f"Uploaded to {plain(output.upload_url)}")
