"""A server inside the process of a command, for as long as the command needs one."""

import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import waitress
from flask import Flask
from pydantic import SecretStr
from waitress import wasyncore

from comfyui_workflow.errors import ConfigurationError
from comfyui_workflow.settings import Settings

THREADS = 4
_STOP_TIMEOUT_S = 3.0
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
    Raises: ConfigurationError."""
    from app import create_server  # noqa: PLC0415 - the parts are joined only where they are needed

    _quiet_libraries()
    server = create_server(settings)
    http = _Http(server.app, settings)
    try:
        server.start()
        http.start()
        yield http.url
    finally:
        http.stop()
        server.stop()


def _quiet_libraries() -> None:
    """What they log are steps of ours that the run itself tells of; here they would cross its display."""
    logging.getLogger("waitress").setLevel(logging.ERROR)


class _Http:
    """waitress in a thread: it ends in its own loop, where no socket is closed under its hands."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        self._sockets: dict[int, Any] = {}
        try:
            self._server = waitress.create_server(
                app,
                map=self._sockets,
                host=settings.host,
                port=settings.port,
                threads=THREADS,
                max_request_body_size=settings.max_upload_mb * 1024 * 1024,
                ident="comfyui-workflow",
            )
        except OSError as error:
            raise ConfigurationError(f"Cannot listen on {settings.host}: {error.strerror}") from error
        self.url = f"http://{settings.host}:{self._server.effective_port}"
        self._thread = threading.Thread(target=self._server.run, name="http", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The workers first: they wake the loop whenever an answer is ready, so it must still be there."""
        self._server.task_dispatcher.shutdown(timeout=_STOP_TIMEOUT_S)
        if not self._thread.is_alive():
            self._server.close()
            return
        with suppress(OSError):  # the loop was awake, has heard it, and closed before we could knock
            self._server.trigger.pull_trigger(lambda: wasyncore.close_all(self._sockets, ignore_all=True))
        self._thread.join(_STOP_TIMEOUT_S)
