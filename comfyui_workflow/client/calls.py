"""Questions to our own server over HTTP, its answers as documents, its refusals as errors."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import urllib3
from msgspec import ValidationError, convert
from urllib3.exceptions import HTTPError, LocationValueError, ReadTimeoutError

from comfyui_workflow import __version__
from comfyui_workflow.client.documents import Document
from comfyui_workflow.client.errors import GATEWAY_STATUSES, RequestRefused, ServerUnreachable
from comfyui_workflow.client.pools import open_pools
from comfyui_workflow.comfyui.timed_connections import AnswerClock, timed_by
from comfyui_workflow.errors import InvalidRequest

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
TRANSFER_S = 120.0
"""For all of an answer, once it has begun; for the beginning of a file that comes at its slowest."""
SLOWEST_BYTES_PER_S = 256.0
MOST_ANSWER_BYTES = 256 * 1024 * 1024
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_PIECE_BYTES = 256 * 1024

SomeDocument = TypeVar("SomeDocument", bound=Document)


class Calls:
    """One server. Not to be shared between threads."""

    def __init__(self, url: str, api_token: str | None) -> None:
        """Raises: InvalidRequest when the URL is none, or the token none that a header can carry."""
        self.url = read_url(url, "http://127.0.0.1:5000")
        self.is_on_this_machine = is_loopback(self.url)
        self._pools = open_pools(self.url, heeds_proxies=not self.is_on_this_machine)
        self._headers = {"Accept-Encoding": "identity", "User-Agent": f"comfyui-workflow/{__version__}"}
        if api_token is not None:
            self._headers["Authorization"] = f"Bearer {_checked_token(api_token)}"

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
    ) -> dict[str, Any]:
        """The answer, when it is a yes. `file` is a name and a content. Raises: RequestRefused,
        ServerUnreachable; InvalidRequest for a body that no JSON can hold."""
        clock = AnswerClock(timeout_s + TRANSFER_S, self._endless())
        query = f"?{urlencode(params)}" if params else ""
        content, headers = _body(json, file)
        with self._send(method, path + query, timeout_s, clock, content=content, headers=headers) as response:
            return self._judge(response)

    @contextmanager
    def stream(self, path: str) -> Iterator[Iterator[bytes]]:
        """The content of a file, in pieces. Raises: as `ask`, while it is read too."""
        clock = AnswerClock(TRANSFER_S, self._endless(), bytes_per_s=SLOWEST_BYTES_PER_S)
        with self._send("GET", path, ANSWER_TIMEOUT_S, clock) as response:
            if response.status != 200:
                self._judge(response)
                raise self.foreign()
            yield self._pieces(response)

    def read(self, kind: type[SomeDocument], value: object) -> SomeDocument:
        """Raises: ServerUnreachable for what no server of ours says."""
        raw = value if isinstance(value, dict) else {}
        try:
            return convert({**raw, "raw": raw}, kind)
        except ValidationError as error:
            raise self.foreign() from error

    def read_all(self, kind: type[SomeDocument], values: object) -> list[SomeDocument]:
        """Raises: as `read`."""
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise self.foreign()
        return [self.read(kind, value) for value in values]

    def foreign(self) -> ServerUnreachable:
        return ServerUnreachable(f"What answers at {self.url} is not a server of this program")

    def _endless(self) -> ServerUnreachable:
        return ServerUnreachable(f"The server at {self.url} does not come to an end of its answer")

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
        """The head of the answer; the rest is read in the block."""
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
            raise ServerUnreachable(f"The server at {self.url} does not answer in time") from error
        except LocationValueError as error:
            raise ServerUnreachable(f"{self.url} cannot be asked: {error}") from error
        except (HTTPError, OSError) as error:
            raise ServerUnreachable(f"No server answers at {self.url}") from error
        try:
            yield response
        finally:
            response.close()

    def _judge(self, response: urllib3.BaseHTTPResponse) -> dict[str, Any]:
        answer = self._read_json(response)
        is_ours = isinstance(answer, dict) and "code" in answer
        if response.status in GATEWAY_STATUSES and not is_ours:
            raise ServerUnreachable(f"The server behind {self.url} is away (HTTP {response.status})")
        if not isinstance(answer, dict):
            raise self.foreign()
        if response.status < 400 and answer.get("success", True):
            return answer
        message = str(answer.get("message") or f"HTTP {response.status}")
        raise RequestRefused(message, code=str(answer.get("code")), status=response.status)

    def _read_json(self, response: urllib3.BaseHTTPResponse) -> object:
        """None for what is none. Raises: ServerUnreachable where there is no end to it."""
        content = bytearray()
        for piece in self._pieces(response):
            content += piece
            if len(content) > MOST_ANSWER_BYTES:
                most_mb = MOST_ANSWER_BYTES // 1024**2
                raise ServerUnreachable(f"The server at {self.url} sends more than {most_mb} MB in an answer")
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            return None

    def _pieces(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        try:
            yield from response.stream(_PIECE_BYTES)
        except (HTTPError, OSError) as error:
            raise ServerUnreachable(f"The connection to {self.url} broke while its answer came") from error


def read_url(text: str, example: str) -> str:
    """Without a slash at the end. Raises: InvalidRequest."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and parts.hostname is not None
        _ = parts.port
    except ValueError:
        is_usable = False
    if not is_usable:
        raise InvalidRequest(f"This is not the address of a server: {text} ({example} would be)")
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in _LOOPBACK_NAMES


def _checked_token(api_token: str) -> str:
    """Raises: InvalidRequest."""
    try:
        api_token.encode("latin-1")
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"The API token has a character that no header can carry, {error.object[error.start]}: copy it "
            "again"
        ) from error
    return api_token


def _body(value: object, file: tuple[str, bytes] | None) -> tuple[bytes | None, dict[str, str]]:
    """The content of a request, and the headers that tell what it is. Raises: InvalidRequest."""
    if file is not None:
        content, content_type = urllib3.encode_multipart_formdata({"file": file})
        return content, {"Content-Type": content_type}
    if value is None:
        return None, {}
    try:
        return json.dumps(value, allow_nan=False).encode(), {"Content-Type": "application/json"}
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"This cannot be said in JSON: {error}") from error
