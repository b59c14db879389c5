"""HTTP requests to the server of this program: responses become documents, refusals become errors."""

import json
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import urllib3
from msgspec import ValidationError, convert
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationValueError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
)

from comfyui_workflow import __version__
from comfyui_workflow.client.documents import Document
from comfyui_workflow.client.errors import GATEWAY_STATUSES, RequestRefused, ServerUnreachable
from comfyui_workflow.client.pools import open_pools
from comfyui_workflow.comfyui.timed_connections import AnswerClock, timed_by
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.retry import Backoff

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
TRANSFER_S = 120.0
"""Time limit for reading a response, in addition to `timeout_s`; for a file, the time budget, to which every
received byte adds time (`AnswerClock`)."""
SLOWEST_BYTES_PER_S = 256.0
RESEND_PATIENCE_S = 30.0
"""Time in which an order whose response was lost is sent again, with the same idempotency key."""
_NOT_SENT = (NewConnectionError, ConnectTimeoutError, ProxyError)
MOST_ANSWER_BYTES = 256 * 1024 * 1024
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_PIECE_BYTES = 256 * 1024

SomeDocument = TypeVar("SomeDocument", bound=Document)


class Calls:
    """HTTP client of one server. Not thread-safe."""

    def __init__(self, url: str, api_token: str | None) -> None:
        """Raises: InvalidRequest for an invalid URL, or a token with a character that a header cannot
        carry."""
        self.url = read_url(url, "http://127.0.0.1:5000")
        self.is_on_this_machine = is_loopback(self.url)
        self._pools = open_pools(self.url, uses_proxy_settings=not self.is_on_this_machine)
        self._headers = {"Accept-Encoding": "identity", "User-Agent": f"comfyui-workflow/{__version__}"}
        if api_token is not None:
            self._headers["Authorization"] = f"Bearer {_checked_header('API token', api_token)}"

    def close(self) -> None:
        self._pools.clear()

    def ask(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
        params: Mapping[str, str] | None = None,
        json: object = None,
        file: tuple[str, bytes] | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Sends a request and returns the JSON object of a successful response. `file` is a name and a
        content. The server carries out equal requests with the same `idempotency_key` once.
        Raises: RequestRefused, ServerUnreachable; InvalidRequest for a body that JSON cannot hold."""
        clock = AnswerClock(timeout_s + TRANSFER_S, self._too_slow())
        query = f"?{urlencode(params)}" if params else ""
        content, headers = _body(json, file)
        if idempotency_key is not None:
            headers["Idempotency-Key"] = _checked_header("idempotency key", idempotency_key)
        with self._send(method, path + query, timeout_s, clock, content=content, headers=headers) as response:
            return self._result(response)

    def order(
        self,
        path: str,
        body: object,
        *,
        key: str | None,
        unsure: str,
        timeout_s: float = ANSWER_TIMEOUT_S,
        pause: Callable[[float], None] = time.sleep,
    ) -> dict[str, Any]:
        """Sends an order with an idempotency key, and sends it again if the response was lost: the server
        carries it out once. `key`: the one of the caller, else a new one. `unsure` is added to the error if
        the order may have been carried out. Raises: as `ask`."""
        key, backoff = key or uuid.uuid4().hex, Backoff()
        may_have_arrived = False
        while True:
            try:
                return self.ask("POST", path, timeout_s=timeout_s, json=body, idempotency_key=key)
            except ServerUnreachable as error:
                may_have_arrived = may_have_arrived or error.may_have_arrived
                if not may_have_arrived:
                    raise
                wait_s = backoff.next_wait_s()
                if backoff.failing_for_s() + wait_s > RESEND_PATIENCE_S:
                    raise ServerUnreachable(f"{error}. {unsure}", may_have_arrived=True) from error
                pause(wait_s)

    @contextmanager
    def stream(self, path: str) -> Iterator[Iterator[bytes]]:
        """Streams the content of a file. Raises: as `ask`, also while the content is read."""
        clock = AnswerClock(TRANSFER_S, self._too_slow(), bytes_per_s=SLOWEST_BYTES_PER_S)
        with self._send("GET", path, ANSWER_TIMEOUT_S, clock) as response:
            if response.status != 200:
                self._result(response)
                raise self.foreign()
            yield self._pieces(response)

    def read(self, kind: type[SomeDocument], value: object) -> SomeDocument:
        """Converts a JSON object to a document. Raises: ServerUnreachable if it is not one of our server."""
        raw = value if isinstance(value, dict) else {}
        try:
            return convert({**raw, "raw": raw}, kind)
        except ValidationError as error:
            raise self.foreign() from error

    def read_all(self, kind: type[SomeDocument], values: object) -> list[SomeDocument]:
        """Converts a list of JSON objects to documents. Raises: as `read`."""
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise self.foreign()
        return [self.read(kind, value) for value in values]

    def foreign(self) -> ServerUnreachable:
        """Returns the error for a response that is not one of our server."""
        return ServerUnreachable(f"Another program answers at {self.url}, not a comfyui-workflow server")

    def _lost(self, reason: str) -> ServerUnreachable:
        """Returns the error for a request that the server may have carried out."""
        return ServerUnreachable(reason, may_have_arrived=True)

    def _too_slow(self) -> ServerUnreachable:
        return self._lost(f"The response of the server at {self.url} does not end in time")

    @contextmanager
    def _send(
        self,
        method: str,
        path: str,
        timeout_s: float,
        clock: AnswerClock,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Sends a request and yields the response after its headers; the body is read in the block."""
        try:
            with timed_by(clock):
                response = self._pools.request(
                    method,
                    self.url + path,
                    body=content,
                    headers={**self._headers, **(headers or {})},
                    timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=timeout_s),
                    retries=False,
                    redirect=False,
                    preload_content=False,
                )
        except ReadTimeoutError as error:
            raise self._lost(f"The server at {self.url} does not answer in time") from error
        except LocationValueError as error:
            raise ServerUnreachable(f"{self.url} cannot be used: {error}") from error
        except (HTTPError, OSError) as error:
            reason = f"No server answers at {self.url}"
            raise ServerUnreachable(reason, may_have_arrived=_may_have_arrived(error)) from error
        try:
            yield response
        finally:
            response.close()

    def _result(self, response: urllib3.BaseHTTPResponse) -> dict[str, Any]:
        answer = self._read_json(response)
        is_ours = isinstance(answer, dict) and "code" in answer
        if response.status in GATEWAY_STATUSES and not is_ours:
            raise self._lost(f"The server behind {self.url} is away (HTTP {response.status})")
        if not isinstance(answer, dict):
            raise self.foreign()
        if response.status < 400 and answer.get("success", True):
            return answer
        message = str(answer.get("message") or f"HTTP {response.status}")
        raise RequestRefused(message, code=str(answer.get("code")), status=response.status)

    def _read_json(self, response: urllib3.BaseHTTPResponse) -> object:
        """Returns the parsed body; None if it is not JSON. Raises: ServerUnreachable if it is too long."""
        content = bytearray()
        for piece in self._pieces(response):
            content += piece
            if len(content) > MOST_ANSWER_BYTES:
                most_mb = MOST_ANSWER_BYTES // 1024**2
                raise ServerUnreachable(
                    f"The server at {self.url} sends more than {most_mb} MB in a response"
                )
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            return None

    def _pieces(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        try:
            yield from response.stream(_PIECE_BYTES)
        except (HTTPError, OSError) as error:
            raise self._lost(f"The connection to {self.url} broke during its response") from error


def _may_have_arrived(error: HTTPError | OSError) -> bool:
    """False if the connection was not established, so that nothing was sent."""
    cause = error.args[0] if error.args else None
    return not isinstance(error, _NOT_SENT) and not isinstance(cause, ssl.SSLCertVerificationError)


def read_url(text: str, example: str) -> str:
    """Returns the URL without a slash at the end. `example` is for the error. Raises: InvalidRequest."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and parts.hostname is not None
        _ = parts.port
    except ValueError:
        is_usable = False
    if not is_usable:
        raise InvalidRequest(f"This is not the URL of a server: {text} (example: {example})")
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in _LOOPBACK_NAMES


def _checked_header(name: str, value: str) -> str:
    """Raises: InvalidRequest."""
    try:
        value.encode("latin-1")
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"The {name} has a character that a header cannot carry, {error.object[error.start]}: copy it "
            "again"
        ) from error
    return value


def _body(value: object, file: tuple[str, bytes] | None) -> tuple[bytes | None, dict[str, str]]:
    """Returns the body of a request and its Content-Type header. Raises: InvalidRequest."""
    if file is not None:
        content, content_type = urllib3.encode_multipart_formdata({"file": file})
        return content, {"Content-Type": content_type}
    if value is None:
        return None, {}
    try:
        return json.dumps(value, allow_nan=False).encode(), {"Content-Type": "application/json"}
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"The request cannot be written as JSON: {error}") from error
