"""Test server that receives webhooks and returns the responses of a test, and a test name resolver."""

import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6
from socketserver import TCPServer

from comfyui_workflow.safe_http.addresses import Endpoint, IpAddress

LOOPBACK = "127.0.0.1"
ELSEWHERE = "127.0.0.2"
"""No server listens there. In these tests it stands for an address that must not be contacted."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    method: str
    path: str
    headers: dict[str, str]
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Sequence[bytes] | Iterator[bytes] = ()


class Receiver:
    """Returns the next of `answers`, and repeats the last one."""

    def __init__(self, server: ThreadingHTTPServer, scheme: str) -> None:
        self._scheme = scheme
        self.port = server.server_address[1]
        self.heard: list[Heard] = []
        self.answers: list[Answer | Callable[[Heard], Answer]] = [Answer()]

    def url(self, path: str = "/hook", host: str = LOOPBACK) -> str:
        return f"{self._scheme}://{host}:{self.port}{path}"

    def answer(self, heard: Heard) -> Answer:
        self.heard.append(heard)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer(heard) if callable(answer) else answer


@contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    with _Server((LOOPBACK, 0), _Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.receiver = Receiver(server, "https" if tls else "http")  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.receiver  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


class Names:
    """Returns a resolver. Each name has addresses, or a list of consecutive answers."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self._answers = {name.replace("_", "."): list(each) for name, each in answers.items()}
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[Endpoint]:
        self.asked.append(host)
        answers = self._answers.get(host, [[host]])
        return [_endpoint(each, port) for each in (answers.pop(0) if len(answers) > 1 else answers[0])]


def only_loopback(address: IpAddress) -> bool:
    """Treats the address as a public one."""
    return str(address) == LOOPBACK


def _endpoint(address: str, port: int) -> Endpoint:
    return Endpoint(family=AF_INET6 if ":" in address else AF_INET, address=(address, port))


class _Server(ThreadingHTTPServer):
    def server_bind(self) -> None:
        """Skips the lookup of the name of this machine, which may be slow."""
        TCPServer.server_bind(self)


class _Handler(BaseHTTPRequestHandler):
    def _do(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        heard = Heard(method=self.command, path=self.path, headers=dict(self.headers), content=content)
        answer = self.server.receiver.answer(heard)  # type: ignore[attr-defined]
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for piece in answer.pieces:
                self.wfile.write(piece)
                self.wfile.flush()
        except OSError:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = _do  # noqa: N815 - their names

    def log_message(self, format: str, *arguments: object) -> None:
        pass
