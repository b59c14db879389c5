"""Fixtures of the connection tests: an sshd for each test, and a small web server behind the tunnel."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.ssh.connection import Connection, ConnectionOptions, open_connection
from comfyui_workflow.ssh.known_hosts import KnownHosts
from tests.sshd import Sshd

LIMIT_S = 15.0


def wait_until(is_true: Callable[[], bool], *, limit_s: float = LIMIT_S) -> float:
    """Returns the duration in seconds."""
    start = time.monotonic()
    while not is_true():
        assert time.monotonic() < start + limit_s, "waited in vain"
        time.sleep(0.01)
    return time.monotonic() - start


@contextmanager
def no_thread_left() -> Iterator[None]:
    """Checks that the threads started in the block end soon after it."""
    before = set(threading.enumerate())
    yield
    left = lambda: [thread for thread in threading.enumerate() if thread not in before]  # noqa: E731
    deadline = time.monotonic() + LIMIT_S
    while left() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left() == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path / "sshd") as server:
        yield server


@pytest.fixture
def options(tmp_path: Path) -> ConnectionOptions:
    return ConnectionOptions(known_hosts=KnownHosts(tmp_path / "known_hosts"), key_directory=None)


class TinyWeb:
    """Answers a GET with the number of bytes in its path: /1000 is a thousand bytes."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = ThreadingHTTPServer((host, port), _Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.port: int = self._server.server_address[1]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(LIMIT_S)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"x" * int(self.path.strip("/") or 0)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[TinyWeb]:
    web = TinyWeb()
    yield web
    web.close()


@pytest.fixture
def connection(server: Sshd, web: TinyWeb, options: ConnectionOptions) -> Iterator[Connection]:
    opened = open_connection(parse_ssh_address(server.ssh_string()), web.port, options)
    yield opened
    opened.close()
