"""Which server a command talks to: the one that was named, the one of the settings, or one of its own."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import click

from comfyui_workflow.cli.own_server import for_own_use, serve_in_this_process
from comfyui_workflow.cli.screen import say
from comfyui_workflow.client.errors import ServerUnreachable
from comfyui_workflow.client.server import WorkflowServer
from comfyui_workflow.errors import ConfigurationError
from comfyui_workflow.settings import PREFIX, Settings

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


def running_server(settings: Settings, named_url: str | None) -> WorkflowServer:
    """Raises: ServerUnreachable, saying what to do."""
    client = _client(settings, named_url)
    try:
        client.check()
    except ServerUnreachable as error:
        raise ServerUnreachable(
            f"{error}. Start one with: comfyui-workflow serve. Or name it with --server or {PREFIX}SERVER_URL"
        ) from error
    return client


@contextmanager
def running_or_own_server(settings: Settings, named_url: str | None) -> Iterator[ReachedServer]:
    """A server that was named must be there; where none was, one is started for the block.
    Raises: ServerUnreachable; ConfigurationError when this process cannot serve."""
    if named_url or settings.server_url or _answers(_client(settings, named_url)):
        with running_server(settings, named_url) as client:
            yield ReachedServer(client=client, is_own=False, named_url=named_url)
        return
    own = for_own_use(settings)
    with ExitStack() as stack:
        try:
            url = stack.enter_context(serve_in_this_process(own))
        except ConfigurationError as error:
            raise ConfigurationError(
                f"No server answers at {_url(settings)}, and this command cannot serve for itself. {error}. "
                "Or name the server that is running with --server"
            ) from error
        yield ReachedServer(client=stack.enter_context(_client(own, url)), is_own=True)


@contextmanager
def asking_server(settings: Settings, named_url: str | None) -> Iterator[WorkflowServer]:
    """A server that is asked one thing; for the question alone, where there is none.
    Raises: as `running_or_own_server`."""
    with running_or_own_server(settings, named_url) as reached:
        if reached.is_own:
            say("No server answers, so this command asks the instance itself.")
        yield reached.client


def server_words(reached: ReachedServer) -> str:
    """What to add to a command so that it finds the same server."""
    return f" --server {reached.named_url}" if reached.named_url else ""


def _client(settings: Settings, named_url: str | None) -> WorkflowServer:
    token = settings.api_token.get_secret_value() if settings.api_token else None
    return WorkflowServer(named_url or _url(settings), token)


def _url(settings: Settings) -> str:
    """Where a server of these settings would be reached from this machine."""
    if settings.server_url:
        return settings.server_url
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - read, not bound
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _answers(client: WorkflowServer) -> bool:
    with client:
        try:
            client.check()
        except ServerUnreachable:
            return False
        return True
