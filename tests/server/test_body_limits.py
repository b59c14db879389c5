"""Tests of body limits: a body that is too large is refused by its headers, and the client gets the
reason."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from flask import Flask, request
from werkzeug.exceptions import RequestEntityTooLarge

from comfyui_workflow.api.auth import guard
from comfyui_workflow.api.mount import find_body_limit
from comfyui_workflow.api.runpod import routes
from comfyui_workflow.server.body_limits import BodyLimits
from comfyui_workflow.server.http import HttpThread
from comfyui_workflow.settings import load_settings

MB = 1024 * 1024


@dataclass
class Served:
    """Implements `server.http.Startable`. The app returns the length of the body."""

    app: Flask
    refusals: BodyLimits
    asked: int = 0

    def start(self) -> int:
        return 0

    def end_waits(self) -> None:
        pass

    def stop(self) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Served, str]]:
    settings = load_settings(data_dir=tmp_path, port=0, max_upload_mb=64)
    limit_of = find_body_limit(settings, (routes.API,))
    server = Served(Flask("app"), BodyLimits(find_limit=limit_of))
    guard(server.app, settings, frozenset(), ["/"], limit_of)
    server.app.register_error_handler(RequestEntityTooLarge, routes.http_error_response)

    @server.app.post("/<path:path>")
    def count(path: str) -> str:
        server.asked += 1
        return str(len(request.get_data()))

    http = HttpThread(server, settings)
    http.start()
    yield server, http.url
    http.stop()


@pytest.mark.parametrize(
    ("path", "most_mb"), [("run", 10), ("runsync", 20), ("v2/x/run", 10), ("v2/x/runsync", 20)]
)
def test_it_is_told_to_who_sends_it_all(served: tuple[Served, str], path: str, most_mb: int) -> None:
    server, url = served
    assert requests.post(f"{url}/{path}", data=bytes(most_mb * MB), timeout=30).text == str(most_mb * MB)
    answer = requests.post(f"{url}/{path}", data=bytes(most_mb * MB + 1), timeout=30)
    assert answer.status_code == 413
    assert f"larger than {most_mb} MB" in answer.json()["error"]
    assert server.asked == 1


def test_it_is_told_to_who_sends_it_in_pieces(served: tuple[Served, str]) -> None:
    server, url = served
    answer = requests.post(f"{url}/run", data=(bytes(MB) for _ in range(40)), timeout=30)
    assert answer.status_code == 413
    assert server.asked == 0


def test_other_paths_take_more(served: tuple[Served, str]) -> None:
    _, url = served
    assert requests.post(f"{url}/files", data=bytes(30 * MB), timeout=30).text == str(30 * MB)
    assert requests.post(f"{url}/files", data=bytes(64 * MB), timeout=30).text == str(64 * MB)
    for body in (bytes(64 * MB + 1), (bytes(MB) for _ in range(65))):
        answer = requests.post(f"{url}/files", data=body, timeout=30)
        assert (answer.status_code, answer.headers["Connection"]) == (413, "close")
        assert "larger than 64 MB" in answer.json()["error"]
        assert "COMFYUI_WORKFLOW_MAX_UPLOAD_MB" in answer.json()["error"]


def test_the_stricter_limit_counts(tmp_path: Path) -> None:
    limit_of = find_body_limit(load_settings(data_dir=tmp_path, max_upload_mb=15), (routes.API,))
    assert [limit_of(path).most_bytes // MB for path in ("/run", "/v2/x/runsync", "/x")] == [10, 15, 15]


@pytest.mark.parametrize("expects", [True, False])
@pytest.mark.parametrize("length", [b"20000000", b"99999999"])
def test_it_is_told_before_the_body_is_sent(served: tuple[Served, str], expects: bool, length: bytes) -> None:
    _, url = served
    port = int(url.rpartition(":")[2])
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as client:
        expect = b"Expect: 100-continue\r\n" if expects else b""
        client.sendall(
            b"POST /run HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + length + b"\r\n" + expect + b"\r\n"
        )
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert "error" in json.loads(body)
