"""Serving HTTP with waitress: until a signal, or in a thread for as long as a command needs it."""

import logging
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn, Protocol

from flask import Flask
from waitress import wasyncore
from waitress.adjustments import Adjustments

from comfyui_workflow.access.connection_limits import ConnectionLimits
from comfyui_workflow.access.peer_users import PeerUsers
from comfyui_workflow.errors import ConfigurationError, DataTaken
from comfyui_workflow.server.body_limits import Refusals
from comfyui_workflow.server.descriptors import raise_open_files_limit
from comfyui_workflow.server.listener import Listener
from comfyui_workflow.server.memory import keep_memory_in_few_arenas
from comfyui_workflow.server.peer_channels import ask_for_peers
from comfyui_workflow.settings import Settings, load_settings

log = logging.getLogger(__name__)

REQUEST_THREADS = 16
HTTP_STOP_TIMEOUT_S = 3.0
HEED_SIGNALS_S = 0.5
LONGEST_HEAD_BYTES = 32 * 1024
MB = 1024 * 1024


class Startable(Protocol):
    """`app.Server`."""

    @property
    def app(self) -> Flask: ...

    @property
    def refusals(self) -> Refusals:
        """Bodies that are refused before they are read."""

    def start(self) -> int: ...

    def end_waits(self) -> None: ...

    @property
    def lost(self) -> str | None: ...

    def when_lost(self, tell: Callable[[], None]) -> None: ...

    def stop(self) -> None: ...


def main(create_server: Callable[[Settings], Startable], **overrides: object) -> None:
    """What `python app.py` and the command `serve` do. Raises: ConfigurationError."""
    settings = load_settings(**overrides)
    configure_logging(settings.log_level)
    serve(create_server(settings), settings, _say_ready)


def serve(server: Startable, settings: Settings, on_ready: Callable[[str, int], None]) -> None:
    """Returns after SIGINT or SIGTERM, when all has come to rest; unfinished runs go on at the next start.
    `on_ready(url, resumed)` is called when requests are answered. Raises: ConfigurationError; DataTaken, when
    all has come to rest, after another server was found to work on the same data."""
    signal.signal(signal.SIGTERM, _leave)
    keep_memory_in_few_arenas()
    raise_open_files_limit()
    http = HttpThread(server, settings)
    server.when_lost(http.end)
    try:
        resumed = server.start()
        on_ready(http.url, resumed)
        http.start()
        http.wait()
    except KeyboardInterrupt:
        log.info("interrupted")
    finally:
        http.stop()
        server.stop()
    if server.lost is not None:
        raise DataTaken(server.lost)


class HttpThread:
    """The port is taken when it is made. Its loop closes its sockets itself, none under its hands."""

    def __init__(self, server: Startable, settings: Settings, limits: ConnectionLimits | None = None) -> None:
        """Raises: ConfigurationError."""
        self._server = server
        self._ended = threading.Event()
        self._sockets: dict[int, Any] = {}
        self._http = _listen(server, settings, limits or ConnectionLimits(), self._sockets)
        self.url = f"http://{_url_host(settings.host)}:{self._http.effective_port}"
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> None:
        """Until it serves no more. A signal is heard meanwhile: one that comes between two looks at signals
        and the beginning of a wait would not end that wait, so none is long."""
        while not self._ended.wait(HEED_SIGNALS_S):
            pass

    def end(self) -> None:
        """Whoever is in `wait` waits no longer."""
        self._ended.set()

    def stop(self) -> None:
        """Whoever waits in a request is answered. The workers first: they wake the loop whenever an answer is
        ready, so it must still be there."""
        self._server.end_waits()
        self._http.task_dispatcher.shutdown(timeout=HTTP_STOP_TIMEOUT_S)
        if not self._thread.is_alive():
            self._http.close()
            return
        with suppress(OSError):  # the loop was awake, has heard it, and closed before we could knock
            self._http.trigger.pull_trigger(lambda: wasyncore.close_all(self._sockets, ignore_all=True))
        self._thread.join(HTTP_STOP_TIMEOUT_S)

    def _run(self) -> None:
        try:
            self._http.run()
        finally:
            self._ended.set()


def configure_logging(level: str) -> None:
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if level != "DEBUG":
        logging.getLogger("paramiko").setLevel(logging.ERROR)
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)


def _listen(
    server: Startable, settings: Settings, limits: ConnectionLimits, handlers: dict[int, Any]
) -> Listener:
    """The port is taken before the store, so that a port in use takes nothing from anybody. Every socket
    that is open is in `handlers`."""
    try:
        options = Adjustments(
            host=_address_of(settings.host),
            port=settings.port,
            threads=REQUEST_THREADS,
            max_request_header_size=LONGEST_HEAD_BYTES,
            max_request_body_size=settings.max_upload_mb * MB + 1,  # the first that is refused
            ident="comfyui-workflow",
        )
        listener = Listener(server.app, options, handlers, server.refusals, limits)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {settings.host} port {settings.port}: {error.strerror}. "
            "Is a server running already? COMFYUI_WORKFLOW_PORT chooses another port"
        ) from error
    if settings.is_private_use:
        ask_for_peers(listener, PeerUsers(settings.other_users).refusal)
    return listener


def _address_of(host: str) -> str:
    """One, where a name has several: with a free port for each of them there would be no one URL.
    Raises: OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = [str(address[0]) for family, *_, address in found if family is socket.AF_INET]
    return addresses[0] if addresses else str(found[0][4][0])


def _say_ready(url: str, resumed: int) -> None:
    """Flushed: who started us may wait for this line."""
    print(f"Serving on {url}", flush=True)  # noqa: T201 - this is what the command says
    if resumed:
        print(f"Taking up {resumed} unfinished run{'s' if resumed > 1 else ''}", flush=True)  # noqa: T201


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
