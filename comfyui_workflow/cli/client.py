"""The native API over HTTP, as the commands use it. Everything that goes wrong is a sentence."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import requests
from pydantic import ValidationError

from comfyui_workflow.cli.documents import (
    Document,
    InspectionDocument,
    OutputDocument,
    ProgressDocument,
    SummaryDocument,
)
from comfyui_workflow.errors import InvalidRequest, WorkflowError
from comfyui_workflow.runs.model import is_workflow_id

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
UPLOAD_TIMEOUT_S = 600.0
INSPECTION_TIMEOUT_S = 180.0
"""The server gives an instance half a minute to let it in, and then asks it many things."""
_BASE = "/comfyui/workflow"
GATEWAY_STATUSES = (502, 503, 504)
"""A proxy says that the server is away; or the server, in words of its own, that the instance is."""
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

SomeDocument = TypeVar("SomeDocument", bound=Document)


class ServerUnreachable(WorkflowError):
    """No server of ours answers there, now."""

    code = "server_unreachable"
    is_transient = True


class RequestRefused(WorkflowError):
    """The server answered, and the answer is no. `code` is the server's."""

    def __init__(self, message: str, *, code: str, status: int) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class ServerClient:
    """One server. Not to be shared between threads."""

    def __init__(self, url: str, api_token: str | None = None) -> None:
        """Raises: InvalidRequest when the URL is none."""
        self.url = _read_url(url)
        self.is_on_this_machine = urlsplit(self.url).hostname in _LOOPBACK_NAMES
        self._session = requests.Session()
        self._session.auth = _Bearer(api_token)
        self._session.trust_env = not self.is_on_this_machine  # no proxy stands before ourselves

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._session.close()

    def check(self) -> None:
        """Raises: ServerUnreachable unless one of our servers answers there."""
        if "unfinished_runs" not in self._call("GET", "/health"):
            raise self._foreign()

    def execute(self, order: Mapping[str, object]) -> str:
        """The id of the run that was started. Raises: RequestRefused, ServerUnreachable."""
        answer = self._call("POST", f"{_BASE}/execute", json=order)
        return str(answer.get("workflow_id"))

    def validate(self, order: Mapping[str, object]) -> dict[str, Any]:
        """As the server sent it; `read_inspection` tells what is in it. Raises: RequestRefused,
        ServerUnreachable."""
        return self._call("POST", f"{_BASE}/validate", timeout_s=INSPECTION_TIMEOUT_S, json=order)

    def read_inspection(self, answer: dict[str, Any]) -> InspectionDocument:
        return self._read(InspectionDocument, answer)

    def upload(self, path: Path) -> str:
        """Where the server put it, to be named in an order. Raises: InvalidRequest when it cannot be read."""
        try:
            with path.open("rb") as file:
                answer = self._call(
                    "POST", f"{_BASE}/files", timeout_s=UPLOAD_TIMEOUT_S, files={"file": (path.name, file)}
                )
        except OSError as error:
            raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from error
        return str(answer.get("path"))

    def progress(self, workflow_id: str) -> ProgressDocument:
        answer = self._call("GET", f"{_run_path(workflow_id)}/progress")
        return self._read(ProgressDocument, answer.get("progress"))

    def outputs(self, workflow_id: str) -> list[dict[str, Any]]:
        """As the server sent them; `read_outputs` tells what is in them."""
        answer = self._call("GET", f"{_run_path(workflow_id)}/outputs")
        return list(answer.get("outputs") or [])

    def read_outputs(self, documents: list[dict[str, Any]]) -> list[OutputDocument]:
        return [self._read(OutputDocument, document) for document in documents]

    def output_url(self, workflow_id: str, number: int) -> str:
        return f"{self.url}{_run_path(workflow_id)}/outputs/{number}"

    def runs(self, limit: int) -> list[SummaryDocument]:
        """Newest first."""
        answer = self._call("GET", _BASE, params={"limit": str(limit)})
        return [self._read(SummaryDocument, run) for run in answer.get("workflows") or []]

    def cancel(self, workflow_id: str) -> str:
        return str(self._call("POST", f"{_run_path(workflow_id)}/cancel").get("message"))

    def retry(self, workflow_id: str) -> str:
        return str(self._call("POST", f"{_run_path(workflow_id)}/retry").get("message"))

    def _call(
        self, method: str, path: str, *, timeout_s: float = ANSWER_TIMEOUT_S, **request: Any
    ) -> dict[str, Any]:
        try:
            response = self._session.request(
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
        except requests.RequestException as error:
            raise ServerUnreachable(f"{self.url} cannot be asked: {error}") from error
        return self._judge(response)

    def _judge(self, response: requests.Response) -> dict[str, Any]:
        """The answer when it is a yes. Raises: RequestRefused, ServerUnreachable."""
        answer = _read_json(response)
        is_ours = isinstance(answer, dict) and "code" in answer
        if response.status_code in GATEWAY_STATUSES and not is_ours:
            raise ServerUnreachable(f"The server behind {self.url} is away (HTTP {response.status_code})")
        if not isinstance(answer, dict):
            raise self._foreign()
        if response.ok and answer.get("success", True):
            return answer
        message = str(answer.get("message") or f"HTTP {response.status_code}")
        raise RequestRefused(message, code=str(answer.get("code")), status=response.status_code)

    def _read(self, kind: type[SomeDocument], value: object) -> SomeDocument:
        raw = value if isinstance(value, dict) else {}
        try:
            return kind.model_validate({**raw, "raw": raw})
        except ValidationError as error:
            raise self._foreign() from error

    def _foreign(self) -> ServerUnreachable:
        return ServerUnreachable(f"What answers at {self.url} is not a server of this program")


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
    except (requests.JSONDecodeError, RecursionError):
        return None


def _read_url(text: str) -> str:
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and parts.hostname is not None
        _ = parts.port
    except ValueError:
        is_usable = False
    if not is_usable:
        raise InvalidRequest(f"This is not the address of a server: {text} (http://127.0.0.1:5000 would be)")
    return url.rstrip("/")


def _run_path(workflow_id: str) -> str:
    if not is_workflow_id(workflow_id):
        raise InvalidRequest(
            f"This is not the id of a run: {workflow_id!r} (comfyui-workflow list tells them)"
        )
    return f"{_BASE}/{workflow_id}"
