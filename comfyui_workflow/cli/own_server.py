"""Temporary server in the process of a command, while the command needs one."""

import _thread
import logging
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import SecretStr

from comfyui_workflow.cli.command_turn import command_turn
from comfyui_workflow.cli.messages import say
from comfyui_workflow.cli.servers import ReachedServer, running_server, server_client
from comfyui_workflow.client.errors import ServerUnreachable
from comfyui_workflow.client.server import WorkflowServer
from comfyui_workflow.errors import ConfigurationError, DataTaken
from comfyui_workflow.server_address import server_address
from comfyui_workflow.settings import Settings, load_settings

_ANY_DIR = (Path("/"),)


@contextmanager
def running_or_own_server(named_url: str | None) -> Iterator[ReachedServer]:
    """Yields the named or configured server. If none is named and none is running, starts one for the block;
    if another command has done so on the same data, waits until that ends.
    Raises: ServerUnreachable if the named server does not answer; ConfigurationError if this process cannot
    serve."""
    with ExitStack() as stack:
        is_own = False
        if not (named_url or server_address().is_named or _is_running()):
            is_own = stack.enter_context(command_turn(load_settings().data_dir, _is_running))
        if is_own:
            yield stack.enter_context(_own_server())
            return
        client = stack.enter_context(running_server(named_url))
        yield ReachedServer(client=client, is_own=False, named_url=named_url)


@contextmanager
def _own_server() -> Iterator[ReachedServer]:
    """Raises: ConfigurationError."""
    own = own_server_settings(load_settings())
    with ExitStack() as stack:
        try:
            url = stack.enter_context(serve_in_this_process(own))
        except ConfigurationError as error:
            raise ConfigurationError(
                f"No server answers at {server_address().url}, and this command cannot start its own server. "
                f"{error}. Or name a running server with --server"
            ) from error
        token = own.api_token.get_secret_value() if own.api_token else None
        yield ReachedServer(client=stack.enter_context(WorkflowServer(url, token)), is_own=True)


@contextmanager
def asking_server(named_url: str | None) -> Iterator[WorkflowServer]:
    """Yields a server for a single request; starts one for the block if none is running.
    Raises: as `running_or_own_server`."""
    with running_or_own_server(named_url) as reached:
        if reached.is_own:
            say("No server is running, so this command connects to the instance itself.")
        yield reached.client


def own_server_settings(settings: Settings) -> Settings:
    """Returns settings for a server on a free port, with a random token that only this process knows, and
    with the file access of its user."""
    return settings.model_copy(
        update={
            "host": "127.0.0.1",
            "port": 0,
            "api_token": SecretStr(secrets.token_urlsafe(32)),
            "read_dirs": settings.read_dirs or _ANY_DIR,
            "write_dirs": settings.write_dirs or _ANY_DIR,
            "ssh_key_dirs": settings.ssh_key_dirs or _ANY_DIR,
            "ssh_agent": settings.ssh_agent is not False,
            "output_dir": settings.default_output_dir,
            "local_instances": settings.local_instances is not False,
        }
    )


@contextmanager
def serve_in_this_process(settings: Settings) -> Iterator[str]:
    """Starts a server for the block and yields its URL. Unfinished runs are resumed; at the end they are
    stopped and saved. Raises: ConfigurationError; DataTaken if another server uses the same data."""
    from comfyui_workflow.app import create_server  # noqa: PLC0415 - slow to import, and rarely needed
    from comfyui_workflow.server.http import HttpThread  # noqa: PLC0415 - slow to import, and rarely needed

    logging.getLogger("waitress").setLevel(logging.ERROR)  # its warnings would disturb the display
    server = create_server(settings)
    http = HttpThread(server, settings)
    server.on_data_taken(_thread.interrupt_main)
    try:
        server.start()
        http.start()
        yield http.url
    except KeyboardInterrupt:
        if server.lost is None:
            raise
    finally:
        http.stop()
        server.stop()
    if server.lost is not None:
        raise DataTaken(server.lost)


def _is_running() -> bool:
    """True if a server answers at the address of the settings."""
    with server_client(None) as client:
        try:
            client.check()
        except ServerUnreachable:
            return False
        return True
