"""Whatever bytes reach the port of the server: an answer without a trace of its inside, and it serves on."""

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from flask import Flask
from hypothesis import example, given
from hypothesis import strategies as st

from comfyui_workflow.app import create_flask, refusals
from comfyui_workflow.server.body_limits import BodyLimits
from comfyui_workflow.server.http import HttpThread
from comfyui_workflow.settings import load_settings
from comfyui_workflow.stores.journal import RunJournal
from comfyui_workflow.stores.memory import MemoryRunStore
from tests.api.conftest import IdleExecutor, parts_of
from tests.fuzz.effort import effort

NOT_HTTP = (400, 411, 413, 414, 431, 501, 505)
"""Answers of waitress, in plain text, to invalid requests of HTTP/1.1."""


@dataclass(frozen=True)
class Served:
    """`serving.Startable`."""

    app: Flask
    refusals: BodyLimits

    def start(self) -> int:
        return 0

    def end_waits(self) -> None:
        pass

    def stop(self) -> None:
        pass


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    directory = tmp_path_factory.mktemp("raw")
    settings = load_settings(data_dir=directory, state_file=directory / "state.json", port=0, max_upload_mb=1)
    store = MemoryRunStore()
    parts = parts_of(settings, RunJournal(store), store, IdleExecutor())
    http = HttpThread(Served(create_flask(parts), refusals(settings)), settings)
    http.start()
    yield int(http.url.rpartition(":")[2])
    http.stop()


BASE = b"/comfyui/workflow"
METHODS = [b"GET", b"POST", b"HEAD", b"OPTIONS", b"get", b"", b"\xff", b"G T", b"CONNECT"]
TARGETS = [
    BASE,
    BASE + b"/execute",
    BASE + b"/state",
    b"/",
    b"*",
    b"",
    b"//x",
    b"http://evil.example/",
    b"/%",
    b"/%00",
    b"/\xff",
    b"/../x",
    BASE + b"?limit=%ff",
    BASE + b"/x/outputs/0",
    b"/" + b"x" * 9000,
    b"/static/..%2f..%2fapp.py",
    b"/static/%2e%2e/app.py",
    b"http://[/",
]
VERSIONS = [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2", b"HTTP/1.x", b"", b"\x00"]
HEADERS = [
    b"Host: localhost",
    b"Host: localhost",
    b"Host: evil.example",
    b"Host:",
    b"Host: \xff",
    b"Host: localhost\r\nHost: evil.example",
    b"Content-Length: 2",
    b"Content-Length: -2",
    b"Content-Length: 2\r\nContent-Length: 3",
    b"Content-Length: 99999999999",
    b"Content-Length: \xb2",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: x",
    b"Transfer-Encoding: chunked, chunked",
    b"Content-Type: application/json",
    b"Content-Type: multipart/form-data; boundary=x",
    b"Expect: 100-continue",
    b"no colon",
    b" folded",
    b": x",
    b"X\x00Y: z",
    b"X Y: z",
    b"Content_Length: 5",
    b"Connection: close",
    b"Range: bytes=0-",
    b"X: " + b"y" * 9000,
    b"Origin: null",
    b"Upgrade: websocket",
]
BODIES = [
    b"",
    b"{}",
    b"2\r\n{}\r\n0\r\n\r\n",
    b"ffffffffffff\r\n",
    b"-1\r\n",
    b"x\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    def of(known: list[bytes]) -> bytes:
        return draw(st.sampled_from(known) | st.sampled_from(known) | st.binary(max_size=6))

    first = b" ".join([of(METHODS), of(TARGETS), of(VERSIONS)])
    headers = [of(HEADERS) for _ in range(draw(st.integers(0, 4)))]
    return b"\r\n".join([first, *headers, b"", of(BODIES)])


@effort(100)
@given(said=requests() | st.binary(max_size=80))
@example(said=b"GET /static/../app.py HTTP/1.1\r\nHost: localhost\r\n\r\n")
def test_the_server_answers_and_serves_on(port: int, said: bytes) -> None:
    heard = exchange(port, said)
    for part in heard.split(b"HTTP/1.")[1:]:
        check(part)
    assert b"Traceback" not in heard
    assert b"create_flask" not in heard
    alive = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    alive.request("GET", "/health")
    assert alive.getresponse().status == 200
    alive.close()


def exchange(port: int, said: bytes) -> bytes:
    """Returns the answer before the end, or before a reset: the server need not read all of a bad request."""
    heard = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                heard += piece
    return heard


def check(part: bytes) -> None:
    head, _, body = part.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if status == 100 or not body or b"text/javascript" in head:
        return
    if b"text/plain" in head:
        assert status in NOT_HTTP
        return
    if b"text/html" in head:
        assert status == 200
        assert b"<title>ComfyUI runs</title>" in body
        return
    assert status < 500
    assert b"application/json" in head
    assert json.loads(body)
