"""A server inside the process of a command, for as long as the command needs one."""

import _thread
import logging
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import SecretStr

from comfyui_workflow.cli.messages import say
from comfyui_workflow.cli.servers import ReachedServer, running_server, server_client
from comfyui_workflow.client.errors import ServerUnreachable
from comfyui_workflow.client.server import WorkflowServer
from comfyui_workflow.errors import ConfigurationError, DataTaken
from comfyui_workflow.server_address import server_address
from comfyui_workflow.settings import Settings, load_settings

_EVERYWHERE = (Path("/"),)


@contextmanager
def running_or_own_server(named_url: str | None) -> Iterator[ReachedServer]:
    """A server that was named must be there; where none was, one is started for the block.
    Raises: ServerUnreachable; ConfigurationError when this process cannot serve."""
    address = server_address()
    if named_url or address.is_named or _answers(server_client(None)):
        with running_server(named_url) as client:
            yield ReachedServer(client=client, is_own=False, named_url=named_url)
        return
    own = for_own_use(load_settings())
    with ExitStack() as stack:
        try:
            url = stack.enter_context(serve_in_this_process(own))
        except ConfigurationError as error:
            raise ConfigurationError(
                f"No server answers at {address.url}, and this command cannot serve for itself. {error}. "
                "Or name the server that is running with --server"
            ) from error
        token = own.api_token.get_secret_value() if own.api_token else None
        yield ReachedServer(client=stack.enter_context(WorkflowServer(url, token)), is_own=True)


@contextmanager
def asking_server(named_url: str | None) -> Iterator[WorkflowServer]:
    """A server that is asked one thing; for the question alone, where there is none.
    Raises: as `running_or_own_server`."""
    with running_or_own_server(named_url) as reached:
        if reached.is_own:
            say("No server answers, so this command asks the instance itself.")
        yield reached.client


def for_own_use(settings: Settings) -> Settings:
    """On a free port that only this process has the token of, and that may do what its user may."""
    return settings.model_copy(
        update={
            "host": "127.0.0.1",
            "port": 0,
            "api_token": SecretStr(secrets.token_urlsafe(32)),
            "read_dirs": settings.read_dirs or _EVERYWHERE,
            "write_dirs": settings.write_dirs or _EVERYWHERE,
            "ssh_key_dirs": settings.ssh_key_dirs or _EVERYWHERE,
            "output_dir": settings.default_output_dir,
            "local_instances": settings.local_instances is not False,
        }
    )


@contextmanager
def serve_in_this_process(settings: Settings) -> Iterator[str]:
    """The URL it answers at. Unfinished runs are taken up; at the end they stop and stay kept.
    Raises: ConfigurationError; DataTaken, when another server was found to work on the same data."""
    from comfyui_workflow.app import create_server  # noqa: PLC0415 - most commands need no server of their own,
    from comfyui_workflow.server.http import HttpThread  # noqa: PLC0415 - and are there at once without it

    logging.getLogger("waitress").setLevel(logging.ERROR)  # its warnings would cross the display
    server = create_server(settings)
    http = HttpThread(server, settings)
    server.when_lost(_thread.interrupt_main)
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


def _answers(client: WorkflowServer) -> bool:
    with client:
        try:
            client.check()
        except ServerUnreachable:
            return False
        return True
