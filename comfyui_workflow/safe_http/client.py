"""HTTP client for URLs that users give (webhooks, images, buckets). It limits the addresses, the time and the
size of every exchange.

How it works. The host of a URL is resolved once, and every address is checked (`addresses`). The connection
goes to one of the checked addresses, so a second DNS answer cannot redirect it (`connections`). Each redirect
is checked in the same way. A deadline closes the socket when the time of the whole exchange is over.
"""

import http.client
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import IO

import certifi
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.response import HTTPResponse

from comfyui_workflow import __version__
from comfyui_workflow.errors import UrlRefused, WebError, WebUnavailable
from comfyui_workflow.safe_http.addresses import (
    AddressCheck,
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
"""All of them are followed with the same method: a webhook that became a GET would lose its body."""
_TRANSIENT_STATUSES = (408, 425, 429)
_PIECE_BYTES = 64 * 1024
_LARGEST_ANSWER_BYTES = 1024 * 1024
_EXCHANGE_S = 300.0
_LEAST_BYTES_PER_S = 1024
"""Minimum rate of a stream. A slower server is cut off."""
_RATE_MEASURED_S = 15.0

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


class HttpStream:
    """An open response. Its body may take as long as it comes at the minimum rate."""

    def __init__(
        self, answer: HTTPResponse, deadline: ExchangeDeadline, origin: str, timeout_s: float
    ) -> None:
        self._answer = answer
        self._deadline = deadline
        self._timeout_s = timeout_s
        self.origin = origin
        self.status: int = answer.status
        self.headers: Mapping[str, str] = answer.headers

    def pieces(self) -> Iterator[bytes]:
        """Yields the body as it was sent."""
        began_s, count = time.monotonic(), 0
        while piece := self._answer.read(_PIECE_BYTES, decode_content=False):
            count += len(piece)
            yield piece
            elapsed_s = time.monotonic() - began_s
            if elapsed_s > _RATE_MEASURED_S and count >= elapsed_s * _LEAST_BYTES_PER_S:
                self._deadline.extend(self._timeout_s)
                began_s, count = time.monotonic(), 0


class GuardedClient:
    """HTTP client with address checks. Every method may be called from any thread. Ignores proxy settings of
    the environment: a proxy would resolve the names itself."""

    def __init__(
        self,
        *,
        may_reach_private: bool,
        resolve: Resolve = resolve_name,
        is_public: AddressCheck = is_public,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._may_reach: AddressCheck = (lambda _: True) if may_reach_private else is_public
        self._resolve = resolve
        self._given_tls = tls

    @property
    def tls(self) -> ssl.SSLContext:
        """Read when it is needed: a server starts sooner without it."""
        return self._given_tls or usual_tls()

    def check(self, url: str) -> None:
        """Checks the URL without any network access. Raises: UrlRefused."""
        check_addresses(read_url(url).host, known_addresses(read_url(url).host), self._may_reach)

    def post(self, url: str, content: bytes, headers: Mapping[str, str], timeout_s: float) -> int:
        """Returns the status of the response, whatever it is; does not read the body. Raises: UrlRefused,
        WebError."""
        with (
            ExchangeDeadline(timeout_s) as deadline,
            self._answer("POST", url, content, headers, deadline) as answer,
        ):
            return answer.status

    def fetch(self, url: str, most_bytes: int, timeout_s: float) -> Fetched:
        """Downloads a file into memory. Raises: UrlRefused; WebError; WebUnavailable if a retry may
        succeed."""
        with ExchangeDeadline(timeout_s) as deadline, self._answer("GET", url, None, {}, deadline) as answer:
            origin = read_url(url).origin
            _check_status(answer.status, origin)
            content = b"".join(_pieces(answer, most_bytes, origin))
            return Fetched(content=content, content_type=answer.headers.get("Content-Type"))

    @contextmanager
    def stream(
        self, url: str, headers: Mapping[str, str], secret_headers: Mapping[str, str], timeout_s: float
    ) -> Iterator[HttpStream]:
        """Sends a GET request and yields the response, whatever its status. `secret_headers` go to the
        server of the URL only, not to one that it redirects to. `timeout_s`: for the headers, and from then
        on for any part of the body that comes slower than the minimum rate. Raises: UrlRefused; WebError;
        WebUnavailable if a retry may succeed."""
        with (
            ExchangeDeadline(timeout_s) as deadline,
            self._answer("GET", url, None, headers, deadline, secret_headers=secret_headers) as answer,
        ):
            yield HttpStream(answer, deadline, read_url(url).origin, timeout_s)

    def exchange(
        self,
        method: str,
        url: str,
        content: Body,
        headers: Mapping[str, str],
        *,
        timeout_s: float = _EXCHANGE_S,
    ) -> HttpAnswer:
        """Sends one request and returns the response, whatever its status. Follows no redirect. For a
        library with a protocol of its own (S3). Raises: UrlRefused; WebError; WebUnavailable if a retry
        may succeed."""
        with (
            ExchangeDeadline(timeout_s) as deadline,
            self._answer(method, url, content, headers, deadline, follows_redirects=False) as answer,
        ):
            received = b"".join(_pieces(answer, _LARGEST_ANSWER_BYTES, read_url(url).origin))
            return HttpAnswer(status=answer.status, headers=dict(answer.headers), content=received)

    @contextmanager
    def _answer(
        self,
        method: str,
        url: str,
        content: Body,
        headers: Mapping[str, str],
        deadline: ExchangeDeadline,
        *,
        follows_redirects: bool = True,
        secret_headers: Mapping[str, str] | None = None,
    ) -> Iterator[HTTPResponse]:
        """Yields the final response; every redirect target is checked like the first URL."""
        target = read_url(url)
        first = target.origin
        for _ in range(MOST_REDIRECTS + 1):
            own = {**headers, **(secret_headers or {})} if target.origin == first else headers
            with (
                _translating_errors(target, deadline),
                closing(self._open(target, deadline)) as connection,
                closing(_ask(connection, method, target, content, own)) as answer,
            ):
                location = answer.headers.get("Location")
                if not follows_redirects or answer.status not in _REDIRECTS or location is None:
                    yield answer
                    deadline.left_s()  # a cut connection can look like the end of the body
                    return
                url = redirected(url, location)
                target = _next_target(target, url)
        raise WebError(f"{target.origin} redirects more than {MOST_REDIRECTS} times")

    def _open(self, target: Target, deadline: ExchangeDeadline) -> HTTPConnection:
        endpoints = checked_addresses(target.host, target.port, self._resolve, self._may_reach)
        return open_http(target, endpoints, deadline, self.tls)


def _ask(
    connection: HTTPConnection,
    method: str,
    target: Target,
    content: Body,
    headers: Mapping[str, str],
) -> HTTPResponse:
    all_headers = {
        "User-Agent": f"comfyui-workflow/{__version__}",
        "Accept-Encoding": "identity",
        "Connection": "close",
        **headers,
    }
    if target.authorization is not None and "Authorization" not in headers:
        all_headers["Authorization"] = target.authorization
    connection.connect()
    # The server may answer before it has read the whole request.
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.request(method, target.path, body=content, headers=all_headers, preload_content=False)
    return connection.getresponse()


def _next_target(before: Target, url: str) -> Target:
    target = read_url(url)
    if before.is_encrypted and not target.is_encrypted:
        raise UrlRefused(f"{before.origin} redirects to {target.origin}, which is not encrypted")
    return target


@contextmanager
def _translating_errors(target: Target, deadline: ExchangeDeadline) -> Iterator[None]:
    try:
        yield
    except (HTTPError, http.client.HTTPException, OSError) as error:
        if deadline.is_over or isinstance(error, (TimeoutError, ReadTimeoutError)):
            raise WebUnavailable(f"{target.origin} took too long") from error
        raise WebUnavailable(f"{target.origin} {_describe(error)}") from error


def _describe(error: Exception) -> str:
    match error:
        case ssl.SSLError():
            return f"caused a TLS error: {error.reason or error}"
        case ConnectionRefusedError():
            return "refuses connections"
        case OSError(strerror=str()) if error.strerror:
            return f"cannot be reached: {error.strerror}"
        case _:
            return "does not send a valid HTTP response"


def _check_status(status: int, origin: str) -> None:
    if status >= 500 or status in _TRANSIENT_STATUSES:
        raise WebUnavailable(f"{origin} answers with status {status}")
    if status != 200:
        raise WebError(f"{origin} answers with status {status}")


def _pieces(answer: HTTPResponse, most_bytes: int, origin: str) -> Iterator[bytes]:
    """Yields the body in pieces, decompressed if it is compressed. Raises: WebError if it is too long."""
    count = 0
    while piece := answer.read(_PIECE_BYTES):
        count += len(piece)
        if count > most_bytes:
            raise WebError(f"{origin} sends more than {most_bytes} bytes")
        yield piece


@cache
def usual_tls() -> ssl.SSLContext:
    """Trusts the certificate authorities of this system and those of the `certifi` package, since a system
    may have none."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
