"""HTTP to a URL that somebody gave us: only where it may lead, only for so long, only so much."""

import http.client
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from typing import IO

import certifi
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.response import HTTPResponse

from comfyui_workflow import __version__
from comfyui_workflow.errors import StoreError, UrlRefused, WebError, WebUnavailable
from comfyui_workflow.safe_http.addresses import (
    Judge,
    Resolve,
    check_addresses,
    checked_addresses,
    is_public,
    known_addresses,
    resolve_name,
)
from comfyui_workflow.safe_http.connections import ExchangeDeadline, open_http
from comfyui_workflow.safe_http.urls import Target, read_url, redirected

MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 307, 308)
"""Each is followed with the same method: a webhook that became a GET would arrive without its content."""
_IN_TROUBLE = (408, 425, 429)
_PIECE_BYTES = 64 * 1024
_LARGEST_ANSWER_BYTES = 1024 * 1024
_EXCHANGE_S = 300.0

Body = bytes | IO[bytes] | None


@dataclass(frozen=True, kw_only=True)
class Fetched:
    content: bytes
    content_type: str | None


@dataclass(frozen=True, kw_only=True)
class HttpAnswer:
    status: int
    headers: Mapping[str, str]
    content: bytes


class GuardedClient:
    """Every method may be called from any thread. Takes no proxy from the environment: that would look up the
    names itself."""

    def __init__(
        self,
        *,
        may_reach_private: bool,
        resolve: Resolve = resolve_name,
        is_public: Judge = is_public,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._may_reach: Judge = (lambda _: True) if may_reach_private else is_public
        self._resolve = resolve
        self._tls = tls or _tls()

    def check(self, url: str) -> None:
        """What can be known without asking anybody. Raises: UrlRefused."""
        check_addresses(read_url(url).host, known_addresses(read_url(url).host), self._may_reach)

    def post(self, url: str, content: bytes, headers: Mapping[str, str], timeout_s: float) -> int:
        """The status of the answer, whatever it is; the rest of it is not read. Raises: UrlRefused,
        WebError."""
        with (
            ExchangeDeadline(timeout_s) as leash,
            self._answer("POST", url, content, headers, leash) as answer,
        ):
            return answer.status

    def fetch(self, url: str, most_bytes: int, timeout_s: float) -> Fetched:
        """A whole file. Raises: UrlRefused; WebError; WebUnavailable, when another try may do better."""
        content = BytesIO()
        content_type = self.download(url, content, most_bytes, timeout_s)
        return Fetched(content=content.getvalue(), content_type=content_type)

    def download(self, url: str, file: IO[bytes], most_bytes: int, timeout_s: float) -> str | None:
        """A whole file, never whole in memory; its content type. Raises: as `fetch`; StoreError."""
        with ExchangeDeadline(timeout_s) as leash, self._answer("GET", url, None, {}, leash) as answer:
            origin = read_url(url).origin
            _check_status(answer.status, origin)
            for piece in _pieces(answer, most_bytes, origin):
                _keep(file, piece)
            return answer.headers.get("Content-Type")

    def exchange(self, method: str, url: str, content: Body, headers: Mapping[str, str]) -> HttpAnswer:
        """For a library that speaks a protocol of its own: one request, and its answer whatever it is; no
        redirect is followed. Raises: UrlRefused; WebError; WebUnavailable, when another try may do better."""
        with (
            ExchangeDeadline(_EXCHANGE_S) as leash,
            self._answer(method, url, content, headers, leash, follows_redirects=False) as answer,
        ):
            said = b"".join(_pieces(answer, _LARGEST_ANSWER_BYTES, read_url(url).origin))
            return HttpAnswer(status=answer.status, headers=dict(answer.headers), content=said)

    @contextmanager
    def _answer(
        self,
        method: str,
        url: str,
        content: Body,
        headers: Mapping[str, str],
        leash: ExchangeDeadline,
        *,
        follows_redirects: bool = True,
    ) -> Iterator[HTTPResponse]:
        """Of whoever answers in the end; every redirect is checked like the first URL."""
        target = read_url(url)
        for _ in range(MOST_REDIRECTS + 1):
            with (
                _in_words(target, leash),
                closing(self._open(target, leash)) as connection,
                closing(_ask(connection, method, target, content, headers)) as answer,
            ):
                location = answer.headers.get("Location")
                if not follows_redirects or answer.status not in _REDIRECTS or location is None:
                    yield answer
                    leash.left_s()  # what was cut can look like what has ended
                    return
                url = redirected(url, location)
                target = _next_target(target, url)
        raise WebError(f"{target.origin} redirects again and again")

    def _open(self, target: Target, leash: ExchangeDeadline) -> HTTPConnection:
        endpoints = checked_addresses(target.host, target.port, self._resolve, self._may_reach)
        return open_http(target, endpoints, leash, self._tls)


def _ask(
    connection: HTTPConnection,
    method: str,
    target: Target,
    content: Body,
    headers: Mapping[str, str],
) -> HTTPResponse:
    said = {
        "User-Agent": f"comfyui-workflow/{__version__}",
        "Accept-Encoding": "identity",
        "Connection": "close",
        **headers,
    }
    if target.authorization is not None:
        said["Authorization"] = target.authorization
    connection.connect()
    with suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it heard all
        connection.request(method, target.path, body=content, headers=said, preload_content=False)
    return connection.getresponse()


def _next_target(before: Target, url: str) -> Target:
    target = read_url(url)
    if before.is_encrypted and not target.is_encrypted:
        raise UrlRefused(f"{before.origin} redirects to {target.origin}, which is not encrypted")
    return target


@contextmanager
def _in_words(target: Target, leash: ExchangeDeadline) -> Iterator[None]:
    try:
        yield
    except (HTTPError, http.client.HTTPException, OSError) as error:
        if leash.is_over or isinstance(error, (TimeoutError, ReadTimeoutError)):
            raise WebUnavailable(f"{target.origin} took too long") from error
        raise WebUnavailable(f"{target.origin} {_words(error)}") from error


def _words(error: Exception) -> str:
    match error:
        case ssl.SSLError():
            return f"does not speak TLS as it should: {error.reason or error}"
        case ConnectionRefusedError():
            return "refuses connections"
        case OSError(strerror=str()) if error.strerror:
            return f"cannot be reached: {error.strerror}"
        case _:
            return "does not answer as a web server does"


def _check_status(status: int, origin: str) -> None:
    if status >= 500 or status in _IN_TROUBLE:
        raise WebUnavailable(f"{origin} answers with status {status}")
    if status != 200:
        raise WebError(f"{origin} answers with status {status}")


def _pieces(answer: HTTPResponse, most_bytes: int, origin: str) -> Iterator[bytes]:
    """Unpacked, where it is packed. Raises: WebError."""
    count = 0
    while piece := answer.read(_PIECE_BYTES):
        count += len(piece)
        if count > most_bytes:
            raise WebError(f"{origin} sends more than {most_bytes} bytes")
        yield piece


def _keep(file: IO[bytes], piece: bytes) -> None:
    """Trouble of the file is none of the web. Raises: StoreError."""
    try:
        file.write(piece)
    except OSError as error:
        raise StoreError(f"What is fetched cannot be stored: {error.strerror}") from error


def _tls() -> ssl.SSLContext:
    """With the authorities of this system, and those that came along where it has none."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
