"""Questions to our own server over HTTP, its answers as documents, its refusals as errors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from pydantic import ValidationError

from comfyui_workflow.client.documents import Document
from comfyui_workflow.client.errors import RequestRefused, ServerUnreachable
from comfyui_workflow.errors import InvalidRequest

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
GATEWAY_STATUSES = (502, 503, 504)
"""A proxy says that the server is away; or the server, in words of its own, that the instance is."""
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_PIECE_BYTES = 256 * 1024

SomeDocument = TypeVar("SomeDocument", bound=Document)


class Calls:
    """One server. Not to be shared between threads."""

    def __init__(self, url: str, api_token: str | None) -> None:
        """Raises: InvalidRequest when the URL is none."""
        self.url = read_url(url, "http://127.0.0.1:5000")
        self.is_on_this_machine = is_loopback(self.url)
        self._session = requests.Session()
        self._session.auth = _Bearer(api_token)
        self._session.trust_env = not self.is_on_this_machine  # no proxy stands before ourselves

    def close(self) -> None:
        self._session.close()

    def ask(
        self, method: str, path: str, *, timeout_s: float = ANSWER_TIMEOUT_S, **request: Any
    ) -> dict[str, Any]:
        """The answer, when it is a yes. Raises: RequestRefused, ServerUnreachable; InvalidRequest for a body
        that no JSON can hold."""
        return self._judge(self._send(method, path, timeout_s, **request))

    @contextmanager
    def stream(self, path: str) -> Iterator[Iterator[bytes]]:
        """The content of a file, in pieces. Raises: as `ask`, while it is read too."""
        with self._send("GET", path, ANSWER_TIMEOUT_S, stream=True) as response:
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

    def _send(self, method: str, path: str, timeout_s: float, **request: Any) -> requests.Response:
        try:
            return self._session.request(
                method,
                self.url + path,
                timeout=(CONNECT_TIMEOUT_S, timeout_s),
                allow_redirects=False,
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
        answer = _read_json(response)
        is_ours = isinstance(answer, dict) and "code" in answer
        if response.status_code in GATEWAY_STATUSES and not is_ours:
            raise ServerUnreachable(f"The server behind {self.url} is away (HTTP {response.status_code})")
        if not isinstance(answer, dict):
            raise self.foreign()
        if response.ok and answer.get("success", True):
            return answer
        message = str(answer.get("message") or f"HTTP {response.status_code}")
        raise RequestRefused(message, code=str(answer.get("code")), status=response.status_code)

    def _pieces(self, response: requests.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_content(_PIECE_BYTES)
        except requests.RequestException as error:
            raise ServerUnreachable(f"The connection to {self.url} broke while a file came") from error


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
        self._api_token = api_token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._api_token is not None:
            request.headers["Authorization"] = f"Bearer {self._api_token}"
        return request


def _read_json(response: requests.Response) -> object:
    """None for what is none."""
    try:
        return response.json()
    except (requests.RequestException, RecursionError):
        return None
