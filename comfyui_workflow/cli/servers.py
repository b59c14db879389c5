"""Selection of the server: the one named with --server, or the one of the settings."""

from dataclasses import dataclass

import click

from comfyui_workflow.client.errors import ServerUnreachable
from comfyui_workflow.client.server import WorkflowServer
from comfyui_workflow.server_address import PREFIX, server_address

server_option = click.option(
    "--server",
    metavar="URL",
    help=f"URL of the server. Default: {PREFIX}SERVER_URL, else made from {PREFIX}HOST and {PREFIX}PORT.",
)


@dataclass(frozen=True, kw_only=True)
class ReachedServer:
    client: WorkflowServer
    is_own: bool
    """True if this command started the server; it then stops with this command."""
    named_url: str | None = None
    """The URL of --server, if it was given."""


def server_client(named_url: str | None) -> WorkflowServer:
    """Returns a client; sends no request yet. Raises: InvalidRequest; ConfigurationError."""
    address = server_address()
    return WorkflowServer(named_url or address.url, address.api_token)


def running_server(named_url: str | None) -> WorkflowServer:
    """Returns a client after a check that the server answers. Raises: ServerUnreachable, with advice; and as
    `server_client`."""
    client = server_client(named_url)
    try:
        client.check()
    except ServerUnreachable as error:
        raise ServerUnreachable(
            f"{error}. Start one with: comfyui-workflow serve. Or name it with --server or {PREFIX}SERVER_URL"
        ) from error
    return client


def server_argument(reached: ReachedServer) -> str:
    """Returns the option to add to a command in a message, so that it uses the same server."""
    return f" --server {reached.named_url}" if reached.named_url else ""
