"""Where the commands speak: sentences on stderr, what a script wants on stdout."""

from collections.abc import Iterable

import click

from comfyui_workflow.cli.run_text import plain
from comfyui_workflow.client.documents import OutputDocument
from comfyui_workflow.client.server import WorkflowServer


def say(sentence: str = "") -> None:
    click.echo(sentence, err=True)


def say_where(
    client: WorkflowServer, workflow_id: str, outputs: Iterable[tuple[int, OutputDocument]]
) -> None:
    """Each with its number. Paths where the server's files are ours, URLs elsewhere."""
    for number, output in outputs:
        if not output.downloaded:
            say(f"Not fetched: {plain(output.filename)} ({plain(output.error or 'not yet')})")
        elif client.is_on_this_machine:
            click.echo(output.local_path)
        else:
            click.echo(client.output_url(workflow_id, number))
