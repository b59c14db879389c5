"""Fixtures: the HTTP server with a test application, and clients that use raw sockets."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flask import Flask, Response, request

from comfyui_workflow.access.connection_limits import ConnectionLimits
from comfyui_workflow.server.body_limits import BodyLimit, BodyLimits
from comfyui_workflow.server.http import HttpThread
from comfyui_workflow.settings import load_settings

LIMIT_S = 30.0
PIECE = bytes(64 * 1024)
GET = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"


NO_REFUSALS = BodyLimits(find_limit=lambda _: BodyLimit(most_bytes=64 * 1024 * 1024, message="too large"))


@dataclass
class Served:
    """Implements `server.http.Startable`."""

    app: Flask
    refusals: BodyLimits = NO_REFUSALS
    asked: int = 0
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    may_end: threading.Event = field(default_factory=threading.Event)

    def start(self) -> int:
        return 0

    def end_waits(self) -> None:
        self.may_end.set()

    def stop(self) -> None:
        pass


@dataclass(frozen=True)
class Running:
    server: Served
    http: HttpThread

    @property
    def port(self) -> int:
        return int(self.http.url.rpartition(":")[2])

    def connect(self, *, receive_bytes: int | None = None) -> socket.socket:
        client = socket.socket()
        if receive_bytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.settimeout(LIMIT_S)
        client.connect(("127.0.0.1", self.port))
        return client

    def ask(self, sent: bytes = GET) -> bytes:
        """Sends a request over a new connection, and returns the response, or the part that was received."""
        with self.connect() as client:
            client.sendall(sent)
            return answer_of(client)


Serve = Callable[..., Running]


def answer_of(client: socket.socket) -> bytes:
    """Reads one response with a `Content-Length`, or the part of it that was sent."""
    heard = b""
    while b"\r\n\r\n" not in heard:
        piece = client.recv(65536)
        if not piece:
            return heard
        heard += piece
    head, _, body = heard.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    length = int(lengths[0].partition(b":")[2]) if lengths else 0
    while len(body) < length and (piece := client.recv(65536)):
        body += piece
    return head + b"\r\n\r\n" + body


def is_closed(client: socket.socket) -> bool:
    """Reads until the connection is closed."""
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def _application() -> Served:
    server = Served(Flask("app"))

    @server.app.get("/hello")
    def hello() -> str:
        server.asked += 1
        return f"hello {request.args.get('n', '')}"

    @server.app.get("/large")
    def large() -> Response:
        """A response that occupies a server thread until the client has received it."""
        server.begun.release()
        return Response(PIECE for _ in range(1600))

    @server.app.get("/whole")
    def whole() -> bytes:
        """A response in one piece: the server thread is free after handing it over."""
        server.begun.release()
        return bytes(20 * 1024 * 1024)

    @server.app.get("/long")
    def long() -> str:
        server.begun.release()
        server.may_end.wait(LIMIT_S)
        return "at last"

    @server.app.post("/body")
    def body() -> str:
        return str(len(request.get_data()))

    return server


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    running: list[Running] = []

    def start(limits: ConnectionLimits | None = None) -> Running:
        server = _application()
        http = HttpThread(server, load_settings(data_dir=tmp_path, port=0, max_upload_mb=64), limits)
        http.start()
        running.append(Running(server, http))
        return running[-1]

    yield start
    for each in running:
        each.http.stop()
