"""Which server a command talks to: the one that was named, or the one of the settings."""

from dataclasses import dataclass

import click

from comfyui_workflow.client.errors import ServerUnreachable
from comfyui_workflow.client.server import WorkflowServer
from comfyui_workflow.server_address import PREFIX, server_address

server_option = click.option(
    "--server",
    metavar="URL",
    help=f"Where the server is. Otherwise {PREFIX}SERVER_URL, or {PREFIX}HOST and {PREFIX}PORT say it.",
)


@dataclass(frozen=True, kw_only=True)
class ReachedServer:
    client: WorkflowServer
    is_own: bool
    """It ends with this command."""
    named_url: str | None = None
    """What the user said with --server."""


def server_client(named_url: str | None) -> WorkflowServer:
    """Asks nothing yet. Raises: InvalidRequest; ConfigurationError."""
    address = server_address()
    return WorkflowServer(named_url or address.url, address.api_token)


def running_server(named_url: str | None) -> WorkflowServer:
    """Raises: ServerUnreachable, saying what to do; as `server_client`."""
    client = server_client(named_url)
    try:
        client.check()
    except ServerUnreachable as error:
        raise ServerUnreachable(
            f"{error}. Start one with: comfyui-workflow serve. Or name it with --server or {PREFIX}SERVER_URL"
        ) from error
    return client


def server_words(reached: ReachedServer) -> str:
    """What to add to a command so that it finds the same server."""
    return f" --server {reached.named_url}" if reached.named_url else ""
