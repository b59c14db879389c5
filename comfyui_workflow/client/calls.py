"""Questions to our own server over HTTP, its answers as documents, its refusals as errors."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from pydantic import ValidationError

from comfyui_workflow.client.documents import Document
from comfyui_workflow.client.errors import RequestRefused, ServerUnreachable
from comfyui_workflow.comfyui.http_responses import (
    AnswerClock,
    InstanceSession,
    TimedAdapter,
    timed_by,
)
from comfyui_workflow.errors import InvalidRequest

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
TRANSFER_S = 120.0
"""For all of an answer, once it has begun; for the beginning of a file that comes at its slowest."""
SLOWEST_BYTES_PER_S = 256.0
MOST_ANSWER_BYTES = 256 * 1024 * 1024
GATEWAY_STATUSES = (502, 503, 504)
"""A proxy says that the server is away; or the server, in words of its own, that the instance is."""
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_PIECE_BYTES = 256 * 1024

SomeDocument = TypeVar("SomeDocument", bound=Document)


class Calls:
    """One server. Not to be shared between threads."""

    def __init__(self, url: str, api_token: str | None) -> None:
        """Raises: InvalidRequest when the URL is none, or the token none that a header can carry."""
        self.url = read_url(url, "http://127.0.0.1:5000")
        self.is_on_this_machine = is_loopback(self.url)
        self._session = InstanceSession(takes_cookies=True)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, TimedAdapter())
        self._session.auth = _Bearer(api_token)
        self._session.trust_env = not self.is_on_this_machine  # no proxy stands before ourselves

    def close(self) -> None:
        self._session.close()

    def ask(
        self, method: str, path: str, *, timeout_s: float = ANSWER_TIMEOUT_S, **request: Any
    ) -> dict[str, Any]:
        """The answer, when it is a yes. Raises: RequestRefused, ServerUnreachable; InvalidRequest for a body
        that no JSON can hold."""
        clock = AnswerClock(timeout_s + TRANSFER_S, self._endless())
        with self._send(method, path, timeout_s, clock, **request) as response:
            return self._judge(response)

    @contextmanager
    def stream(self, path: str) -> Iterator[Iterator[bytes]]:
        """The content of a file, in pieces. Raises: as `ask`, while it is read too."""
        clock = AnswerClock(TRANSFER_S, self._endless(), bytes_per_s=SLOWEST_BYTES_PER_S)
        with self._send("GET", path, ANSWER_TIMEOUT_S, clock) as response:
            if response.status_code != 200:
                self._judge(response)
                raise self.foreign()
            yield self._pieces(response)

    def read(self, kind: type[SomeDocument], value: object) -> SomeDocument:
        """Raises: ServerUnreachable for what no server of ours says."""
        raw = value if isinstance(value, dict) else {}
        try:
            return kind.model_validate({**raw, "raw": raw})
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

    def _send(
        self, method: str, path: str, timeout_s: float, clock: AnswerClock, **request: Any
    ) -> requests.Response:
        """The head of the answer; the rest is read by whoever gets it."""
        try:
            with timed_by(clock):
                return self._session.request(
                    method,
                    self.url + path,
                    timeout=(CONNECT_TIMEOUT_S, timeout_s),
                    allow_redirects=False,
                    stream=True,
                    **request,
                )
        except requests.ConnectionError as error:
            raise ServerUnreachable(f"No server answers at {self.url}") from error
        except requests.Timeout as error:
            raise ServerUnreachable(f"The server at {self.url} does not answer in time") from error
        except (requests.exceptions.InvalidJSONError, TypeError) as error:
            raise InvalidRequest(f"This cannot be said in JSON: {error}") from error
        except requests.RequestException as error:
            raise ServerUnreachable(f"{self.url} cannot be asked: {error}") from error

    def _judge(self, response: requests.Response) -> dict[str, Any]:
        answer = self._read_json(response)
        is_ours = isinstance(answer, dict) and "code" in answer
        if response.status_code in GATEWAY_STATUSES and not is_ours:
            raise ServerUnreachable(f"The server behind {self.url} is away (HTTP {response.status_code})")
        if not isinstance(answer, dict):
            raise self.foreign()
        if response.ok and answer.get("success", True):
            return answer
        message = str(answer.get("message") or f"HTTP {response.status_code}")
        raise RequestRefused(message, code=str(answer.get("code")), status=response.status_code)

    def _read_json(self, response: requests.Response) -> object:
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

    def _pieces(self, response: requests.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_content(_PIECE_BYTES)
        except requests.RequestException as error:
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


class _Bearer(requests.auth.AuthBase):
    """As an auth object, so that no ~/.netrc replaces it."""

    def __init__(self, api_token: str | None) -> None:
        """Raises: InvalidRequest."""
        try:
            (api_token or "").encode("latin-1")
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"The API token has a character that no header can carry, {error.object[error.start]}: copy "
                "it again"
            ) from error
        self._api_token = api_token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._api_token is not None:
            request.headers["Authorization"] = f"Bearer {self._api_token}"
        return request
