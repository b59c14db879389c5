"""Tests of the probe of a port, with real answers of programs on the port of ComfyUI."""

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from comfyui_workflow.comfyui.probe import Finding, Kind, judge, probe

LIMIT_S = 5.0


@contextmanager
def answering(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that gives each of its connections to `serve`. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, suppress(OSError):
                        serve(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def asked(serve: Callable[[socket.socket], None], limit_s: float = LIMIT_S) -> Finding:
    with answering(serve) as port:
        return probe(lambda: socket.create_connection(("127.0.0.1", port), 5), {}, limit_s)


def sending(answer: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    return serve


def page(status: int, body: bytes = b"", **headers: str) -> Finding:
    return judge(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def test_comfyui() -> None:
    answer = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"exec_info": {"queue_remaining": 3}}'
    assert asked(sending(answer)).kind is Kind.COMFYUI


def test_headers_are_sent() -> None:
    seen = []

    def serve(connection: socket.socket) -> None:
        seen.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nServer: Caddy\r\nContent-Length: 0\r\n\r\n")

    with answering(serve) as port:
        open_socket = lambda: socket.create_connection(("127.0.0.1", port), 5)  # noqa: E731
        found = probe(open_socket, {"Authorization": "Bearer key"}, LIMIT_S)
    assert (found.kind, found.what) == (Kind.LOGIN, "asks for a login (Caddy)")
    assert b"GET /prompt HTTP/1.1\r\n" in seen[0]
    assert b"Authorization: Bearer key\r\n" in seen[0]


@pytest.mark.parametrize(
    ("found", "kind", "what"),
    [
        (page(302, location="/login?next=%2Fprompt", server="TornadoServer/6.4"), Kind.OTHER, "is Jupyter"),
        (page(403, b"<title>Jupyter Server</title>", server="TornadoServer/6.4"), Kind.OTHER, "is Jupyter"),
        (page(404, b"<title>JupyterLab</title>", content_type="text/html"), Kind.OTHER, "is Jupyter"),
        (page(401, server="Caddy"), Kind.LOGIN, "asks for a login (Caddy)"),
        (page(302, location="https://1.2.3.4:1111/login"), Kind.LOGIN, "asks for a login"),
        (
            page(200, b"<form><input type=password></form>", content_type="text/html"),
            Kind.LOGIN,
            "asks for a login",
        ),
        (page(308, location="https://127.0.0.1/prompt"), Kind.OTHER, "accepts HTTPS only"),
        (page(400, b"Client sent an HTTP request to an HTTPS server.\n"), Kind.OTHER, "accepts HTTPS only"),
        (
            page(404, b"<html><title>Instance\n  Portal &amp; co</title>", server="uvicorn"),
            Kind.OTHER,
            'is a web page titled "Instance Portal & co" that answers HTTP 404',
        ),
        (
            page(200, b"ollama is running", content_type="text/plain", server="x\x1b[31m" + "y" * 99),
            Kind.OTHER,
            f"is a web server (x [31m{'y' * 54}) that answers HTTP 200",
        ),
        (page(502, server="nginx"), Kind.UNCLEAR, "answers HTTP 502: what is behind it may be starting"),
        (
            page(200, b"{", content_type="application/json"),
            Kind.UNCLEAR,
            "answers with something that is not JSON",
        ),
        (
            page(200, b'{"detail": 1}', content_type="application/json"),
            Kind.OTHER,
            "is another program, which answers with other JSON than ComfyUI",
        ),
        (
            page(200, b'{"exec_info": {"queue_remaining": 0}}'),
            Kind.COMFYUI,
            "is ComfyUI",
        ),
    ],
)
def test_answers(found: Finding, kind: Kind, what: str) -> None:
    assert (found.kind, found.what) == (kind, what)


def test_what_is_no_web_server() -> None:
    found = asked(sending(b"SSH-2.0-OpenSSH_9.2p1\r\n"))
    assert (found.kind, found.what) == (Kind.OTHER, "is no web server")


def test_a_connection_that_is_closed_is_no_proof() -> None:
    """A ComfyUI that crashes does that too."""
    found = asked(lambda connection: None)
    assert (found.kind, found.what) == (Kind.UNCLEAR, "closes the connection without an answer")


@pytest.mark.parametrize(
    "serve",
    [
        lambda connection: connection.recv(4096) and connection.recv(4096),
        lambda connection: [connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n") for _ in range(10**9)],
        lambda connection: [
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: " if n == 0 else b"x") or time.sleep(0.01)
            for n in range(10**9)
        ],
    ],
    ids=["silent", "continues for ever", "drips"],
)
def test_the_time_is_limited(serve: Callable[[socket.socket], None]) -> None:
    before_s = time.monotonic()
    assert asked(serve, limit_s=0.5).kind is Kind.UNCLEAR
    assert time.monotonic() - before_s < 3


def test_a_flood_is_not_read_to_its_end() -> None:
    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while True:
            connection.sendall(b"[" * 65536)

    assert asked(flood).kind is Kind.UNCLEAR


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    file = tmp_path / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", "1"]
    command += ["-keyout", str(file), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(command, check=True, timeout=30, capture_output=True)
    file.write_bytes(file.read_bytes() + (tmp_path / "cert.pem").read_bytes())
    return file


def test_a_port_with_tls(certificate: Path) -> None:
    """A login page like that of Jupyter on vast.ai."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True).close()

    found = asked(serve)
    assert (found.kind, found.what) == (Kind.OTHER, "accepts HTTPS only")
