"""Serves HTTP with waitress: until a signal arrives, or in a thread while a command needs it."""

import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn, Protocol

from flask import Flask
from waitress import wasyncore
from waitress.adjustments import Adjustments

from comfyui_workflow.access.connection_limits import ConnectionLimits
from comfyui_workflow.access.peer_users import PeerUsers
from comfyui_workflow.errors import ConfigurationError, DataTaken
from comfyui_workflow.server.body_limits import BodyLimits
from comfyui_workflow.server.descriptors import raise_open_files_limit
from comfyui_workflow.server.listener import Listener
from comfyui_workflow.server.memory import (
    collect_garbage_often,
    reserve_interned_names,
    return_freed_memory,
)
from comfyui_workflow.server.peer_channels import check_peers
from comfyui_workflow.server_address import PREFIX
from comfyui_workflow.settings import Settings, load_settings

log = logging.getLogger(__name__)

REQUEST_THREADS = 16
PORT_SETTING = f"{PREFIX}PORT"
HTTP_STOP_TIMEOUT_S = 3.0
SIGNAL_POLL_S = 0.5
LONGEST_HEAD_BYTES = 32 * 1024
MB = 1024 * 1024
PORTS_TRIED = 100
HIGHEST_PORT = 65535


class Servable(Protocol):
    """What is served at a port."""

    @property
    def app(self) -> Flask: ...

    @property
    def refusals(self) -> BodyLimits:
        """The limits of request bodies, checked before a body is read."""

    def end_waits(self) -> None: ...


class Startable(Servable, Protocol):
    """Interface of `app.Server`."""

    def start(self) -> int: ...

    @property
    def lost(self) -> str | None: ...

    def on_data_taken(self, notify: Callable[[], None]) -> None: ...

    def stop(self) -> None: ...


def main(create_server: Callable[[Settings], Startable], **overrides: object) -> None:
    """Runs the server: the entry point of `python app.py` and of the command `serve`.

    Raises: ConfigurationError."""
    settings = load_settings(**overrides)
    configure_logging(settings.log_level)
    serve(create_server(settings), settings, _print_ready)


def serve(server: Startable, settings: Settings, on_ready: Callable[[str, int], None]) -> None:
    """Serves until SIGINT or SIGTERM, and returns when everything is stopped.

    Unfinished runs continue after the next start. `on_ready(url, resumed)` is called before the first request
    is answered. Raises: ConfigurationError; DataTaken after everything is stopped, if another server works on
    the same data."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    return_freed_memory()
    raise_open_files_limit()
    http = HttpThread(server, settings)
    server.on_data_taken(http.end)
    try:
        resumed = server.start()
        collect_garbage_often()
        on_ready(http.url, resumed)
        http.start()
        reserve_interned_names()
        http.wait()
    except KeyboardInterrupt:
        log.info("interrupted")
    finally:
        http.stop()
        server.stop()
    if server.lost is not None:
        raise DataTaken(server.lost)


@dataclass(frozen=True, kw_only=True)
class Port:
    """A port to listen on."""

    number: int
    """0: any free one."""
    setting: str = PORT_SETTING
    """The variable that sets it, for error messages."""
    threads: int = REQUEST_THREADS


class AdditionalPort:
    """A second port of the server, bound and served as a component."""

    def __init__(self, what: str, server: Servable, settings: Settings, port: Port) -> None:
        self._what, self._server, self._settings, self._port = what, server, settings, port
        self._http: HttpThread | None = None

    def open(self) -> None:
        """Raises: ConfigurationError."""
        self._http = HttpThread(self._server, self._settings, port=self._port)

    def start(self) -> None:
        if self._http is not None:
            self._http.start()
            log.info("%s is served on %s", self._what, self._http.url)

    def stop(self) -> None:
        if self._http is not None:
            self._http.stop()


class HttpThread:
    """The HTTP server in its own thread. The constructor binds the port.

    Only the loop itself closes its sockets, so that no socket is closed while the loop uses it."""

    def __init__(
        self,
        server: Servable,
        settings: Settings,
        limits: ConnectionLimits | None = None,
        port: "Port | None" = None,
    ) -> None:
        """`port`: another one than that of the settings. Raises: ConfigurationError."""
        self._server = server
        self._ended = threading.Event()
        self._sockets: dict[int, Any] = {}
        self._http = _listen(
            server, settings, port or Port(number=settings.port), limits or ConnectionLimits(), self._sockets
        )
        self.url = f"http://{url_host(settings.host)}:{self._http.effective_port}"
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> None:
        """Waits until the server has ended.

        Each wait is short: a signal that arrives just before a wait begins does not interrupt that wait."""
        while not self._ended.wait(SIGNAL_POLL_S):
            pass

    def end(self) -> None:
        """Ends `wait`."""
        self._ended.set()

    def stop(self) -> None:
        """Stops the server. Requests that wait are answered first.

        The workers stop before the loop: they wake the loop when a response is ready."""
        self._server.end_waits()
        self._http.task_dispatcher.shutdown(timeout=HTTP_STOP_TIMEOUT_S)
        if not self._thread.is_alive():
            self._http.close()
            return
        with suppress(OSError):  # the loop has already ended and closed its trigger
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
    server: Servable, settings: Settings, port: Port, limits: ConnectionLimits, handlers: dict[int, Any]
) -> Listener:
    """Binds the port and returns the listener. `handlers` receives all open sockets.

    Called before the stores are opened: if the port is in use, nothing else was locked. Raises:
    ConfigurationError."""
    try:
        options = Adjustments(
            host=_address_of(settings.host),
            port=port.number,
            threads=port.threads,
            max_request_header_size=LONGEST_HEAD_BYTES,
            # waitress refuses a body of this size
            max_request_body_size=settings.max_upload_mb * MB + 1,
            ident="comfyui-workflow",
        )
        listener = Listener(server.app, options, handlers, server.refusals, limits)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {settings.host} port {port.number}: {error.strerror}. "
            f"Is a server running already? {_other_port(settings.host, port, error)}"
        ) from error
    if settings.is_private_use:
        check_peers(listener, PeerUsers(settings.other_users).refusal)
    return listener


def _other_port(host: str, port: Port, error: OSError) -> str:
    """Returns the sentence that offers the next free port."""
    ports = _ports_after(port.number) if error.errno == errno.EADDRINUSE else ()
    free = next((each for each in ports if _is_free(host, each)), None)
    if free is None:
        return f"{port.setting} chooses another port"
    users = ", for the server and the commands" if port.setting == PORT_SETTING else ""
    return f"Port {free} is free: {port.setting}={free} chooses it{users}"


def _ports_after(port: int) -> range:
    return range(port + 1, min(port + PORTS_TRIED, HIGHEST_PORT) + 1)


def _is_free(host: str, port: int) -> bool:
    try:
        address = _address_of(host)
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError:
        return False
    return True


def _address_of(host: str) -> str:
    """Returns one address of a host, an IPv4 address if there is one.

    waitress would bind each address of a name. With port 0 each would have another port, and there would be
    no single URL. Raises: OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = [str(address[0]) for family, *_, address in found if family is socket.AF_INET]
    return addresses[0] if addresses else str(found[0][4][0])


def _print_ready(url: str, resumed: int) -> None:
    """Prints the URL. Flushed: the parent process may wait for this line."""
    print(f"Serving on {url}", flush=True)  # noqa: T201 - output of the command
    if resumed:
        print(f"Taking up {resumed} unfinished run{'s' if resumed > 1 else ''}", flush=True)  # noqa: T201


def _on_sigterm(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def url_host(host: str) -> str:
    """Returns the host for a URL: `127.0.0.1` for `localhost`, which may lead to another program."""
    if host == "localhost":
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
