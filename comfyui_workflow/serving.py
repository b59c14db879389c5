"""Serving until a signal: waitress in the main thread, everything else in threads of its own."""

import logging
import signal
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, Protocol

import waitress
from flask import Flask

from comfyui_workflow.errors import ConfigurationError
from comfyui_workflow.settings import Settings

log = logging.getLogger(__name__)

REQUEST_THREADS = 16


class Startable(Protocol):
    """`app.Server`."""

    @property
    def app(self) -> Flask: ...

    def start(self) -> int: ...

    def stop(self) -> None: ...


def serve(server: Startable, settings: Settings, on_ready: Callable[[str, int], None]) -> None:
    """Returns after SIGINT or SIGTERM, when all has come to rest; unfinished runs go on at the next start.
    `on_ready(url, resumed)` is called when requests are answered. Raises: ConfigurationError."""
    signal.signal(signal.SIGTERM, _leave)
    http = _listen(server.app, settings)
    try:
        resumed = server.start()
        on_ready(f"http://{_url_host(settings.host)}:{http.effective_port}", resumed)
        http.run()
    except KeyboardInterrupt:
        log.info("interrupted")
    finally:
        http.close()
        server.stop()


def configure_logging(level: str) -> None:
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if level != "DEBUG":
        logging.getLogger("paramiko").setLevel(logging.ERROR)
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)


def _listen(app: Flask, settings: Settings) -> "waitress.server.BaseWSGIServer":
    """The port is taken before the store, so that a port in use takes nothing from anybody."""
    try:
        return waitress.create_server(
            app,
            host=settings.host,
            port=settings.port,
            threads=REQUEST_THREADS,
            max_request_body_size=settings.max_upload_mb * 1024 * 1024,
            ident="comfyui-workflow",
        )
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {settings.host} port {settings.port}: {error.strerror}. "
            "Is a server running already? COMFYUI_WORKFLOW_PORT chooses another port"
        ) from error


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
