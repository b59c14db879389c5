"""A server inside the process of a command, for as long as the command needs one."""

import _thread
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from comfyui_workflow.errors import DataTaken
from comfyui_workflow.settings import Settings

_EVERYWHERE = (Path("/"),)


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
