"""Finds out what answers on a port of an instance: ComfyUI, a login page, or another program.

    probe(open_socket, headers, limit_s) -> Finding

How it works. It sends `GET /prompt`, the cheapest request of ComfyUI, over a socket of its own, so that
nothing of another program reaches the client of ComfyUI. What only a broken or overloaded ComfyUI would
answer is `UNCLEAR`: the client, which has all limits and timeouts, decides.
"""

import html
import http.client
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from comfyui_workflow.parsing.untrusted import as_object, read_json

MOST_BODY_BYTES = 64 * 1024
LONGEST_NAME = 60
_LOGIN_STATUS = (401, 403, 407)
_LOGIN_WORDS = re.compile(r"log-?in|sign-?in|auth|sso|token|portal", re.IGNORECASE)
_JUPYTER_PATHS = re.compile(r"/(login\?next=|lab\b|tree\b|hub/)")
_PASSWORD_FIELD = re.compile(rb"""type\s*=\s*["']?password""", re.IGNORECASE)
_TLS_RECORDS = (b"\x15", b"\x16")
"""First byte of a TLS record: an alert, or a part of a handshake."""


class Kind(Enum):
    COMFYUI = "ComfyUI"
    LOGIN = "a login that protects whatever is behind it"
    OTHER = "certainly not ComfyUI"
    UNCLEAR = "no answer, or one that a broken, starting or overloaded ComfyUI may give"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`what` completes a sentence that begins with the port: "port 8080 is Jupyter"."""

    kind: Kind
    what: str = "accepts connections and does not answer"


def probe(open_socket: Callable[[], Any], headers: Mapping[str, str], limit_s: float) -> Finding:
    """`open_socket` opens a connection to the port: a socket, or a channel with its methods. The answer must
    come within `limit_s`. Raises: what `open_socket` raises."""
    with open_socket() as sock, _closing_after(limit_s, sock) as is_overdue:
        try:
            return _ask(sock, headers)
        except (http.client.HTTPException, OSError, EOFError, ValueError) as error:
            if is_overdue.is_set():
                return Finding(kind=Kind.UNCLEAR)
            has_answered = type(error) is http.client.BadStatusLine
    return _judge_without_http(open_socket, limit_s, has_answered=has_answered)


@contextmanager
def _closing_after(limit_s: float, sock: Any) -> Iterator[threading.Event]:
    """Ends the connection when the time is over, also while it is read, and sets the event that is
    yielded."""
    is_overdue = threading.Event()

    def close() -> None:
        is_overdue.set()
        with suppress(OSError, EOFError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    timer = threading.Timer(limit_s, close)
    timer.daemon = True
    timer.start()
    try:
        sock.settimeout(limit_s)
        yield is_overdue
    finally:
        timer.cancel()


def _ask(sock: Any, headers: Mapping[str, str]) -> Finding:
    connection = http.client.HTTPConnection("127.0.0.1")
    connection.sock = sock
    connection.request("GET", "/prompt", headers={"Connection": "close", **headers})
    answer = connection.getresponse()
    return judge(answer.status, {name.lower(): value for name, value in answer.getheaders()}, _body(answer))


def _body(answer: http.client.HTTPResponse) -> bytes:
    """The beginning of the body, as far as it arrives."""
    try:
        return answer.read(MOST_BODY_BYTES)
    except http.client.IncompleteRead as error:
        return error.partial


def judge(status: int, headers: Mapping[str, str], body: bytes) -> Finding:
    """Judges an HTTP answer to `GET /prompt`. `headers` have lower-case names."""
    location, kind = headers.get("location", ""), headers.get("content-type", "").lower()
    is_page = status != 200 or "html" in kind or "text/plain" in kind
    if _is_jupyter(headers, location, body):
        return Finding(kind=Kind.OTHER, what="is Jupyter")
    if _is_login(status, location, body if is_page else b""):
        return _login(headers)
    if location.startswith("https:") or b"to an HTTPS server" in body[:1000]:
        return Finding(kind=Kind.OTHER, what="accepts HTTPS only")
    if status >= 500:
        return Finding(kind=Kind.UNCLEAR, what=f"answers HTTP {status}: what is behind it may be starting")
    if is_page:
        return Finding(kind=Kind.OTHER, what=f"is {_name_of(headers, body)} that answers HTTP {status}")
    return _judge_json(body)


def _judge_json(body: bytes) -> Finding:
    try:
        answer = as_object(read_json(body))
    except ValueError:
        return Finding(kind=Kind.UNCLEAR, what="answers with something that is not JSON")
    if isinstance(as_object(answer.get("exec_info")).get("queue_remaining"), int):
        return Finding(kind=Kind.COMFYUI, what="is ComfyUI")
    return Finding(kind=Kind.OTHER, what="is another program, which answers with other JSON than ComfyUI")


def _is_jupyter(headers: Mapping[str, str], location: str, body: bytes) -> bool:
    is_tornado = headers.get("server", "").startswith("TornadoServer")
    return b"jupyter" in body.lower() or (is_tornado and _JUPYTER_PATHS.search(location) is not None)


def _is_login(status: int, location: str, page: bytes) -> bool:
    is_redirect = 300 <= status < 400 and _LOGIN_WORDS.search(location) is not None
    return status in _LOGIN_STATUS or is_redirect or _PASSWORD_FIELD.search(page) is not None


def _login(headers: Mapping[str, str]) -> Finding:
    server = _cleaned(headers.get("server", ""))
    return Finding(kind=Kind.LOGIN, what=f"asks for a login{f' ({server})' if server else ''}")


def _name_of(headers: Mapping[str, str], body: bytes) -> str:
    title = re.search(rb"<title[^>]*>([^<]{1,1000})", body, re.IGNORECASE)
    name = _cleaned(html.unescape(title[1].decode("utf-8", "replace"))) if title else ""
    server = _cleaned(headers.get("server", ""))
    return f'a web page titled "{name}"' if name else f"a web server{f' ({server})' if server else ''}"


def _cleaned(text: str) -> str:
    """Text of another program for a message: one short line of printable characters."""
    words = "".join(letter if letter.isprintable() else " " for letter in text).split()
    return " ".join(words)[:LONGEST_NAME]


def _judge_without_http(open_socket: Callable[[], Any], limit_s: float, *, has_answered: bool) -> Finding:
    """Judges a port that answered with something else than HTTP, or closed the connection: is it TLS?"""
    with open_socket() as sock, _closing_after(limit_s, sock):
        try:
            sock.sendall(_client_hello())
            if sock.recv(1) in _TLS_RECORDS:
                return Finding(kind=Kind.OTHER, what="accepts HTTPS only")
        except (OSError, EOFError):
            pass
    if has_answered:
        return Finding(kind=Kind.OTHER, what="is no web server")
    return Finding(kind=Kind.UNCLEAR, what="closes the connection without an answer")


def _client_hello() -> bytes:
    """The first message of a TLS client."""
    sent = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return sent.read()
