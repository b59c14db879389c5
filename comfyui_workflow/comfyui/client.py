"""Typed HTTP client for the routes of one ComfyUI. It never retries; the error class tells if a retry makes
sense."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, BinaryIO, TypeVar

import requests
import urllib3

from comfyui_workflow.comfyui.file_view import ViewedFile, headers_of, read_view
from comfyui_workflow.comfyui.folders import Directories, read_directories
from comfyui_workflow.comfyui.history import MOST_OUTPUTS, HistoryEntry, read_history
from comfyui_workflow.comfyui.http_responses import (
    AnswerBody,
    InstanceSession,
    TimedAdapter,
    read_body,
    refuse_encoding,
)
from comfyui_workflow.comfyui.limits import (
    InstanceLimits,
    LimitBreaches,
    too_many_outputs,
    too_slow,
    too_slow_file,
)
from comfyui_workflow.comfyui.queue import PromptMark, QueueSnapshot, read_queue, read_running_graphs
from comfyui_workflow.comfyui.system import System, read_system
from comfyui_workflow.comfyui.timed_connections import AnswerClock, timed_by
from comfyui_workflow.comfyui.validation_errors import refusal_sentence
from comfyui_workflow.errors import (
    ComfyUIError,
    ComfyUIUnavailable,
    InstanceBroken,
    LimitExceeded,
    PromptCrashed,
    PromptRefused,
    UploadNotSaved,
)
from comfyui_workflow.parsing.untrusted import as_list, as_object, as_text
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.validation.replacements import Replacements, read_replacements

CONNECT_TIMEOUT_S = 5.0
WANTS_LOGIN = (
    "a login before it does not accept this. If it has a new token or password, give the instance "
    "comfyui_token, or comfyui_user and comfyui_password"
)
READ_TIMEOUT_S = 30.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Submission:
    """ComfyUI's response to a prompt. `node_errors` lists output nodes that ComfyUI dropped; the other nodes
    run."""

    prompt_id: str
    node_errors: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RawAnswer:
    """A response that is relayed unchanged."""

    status: int
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A complete response within the limits. `what` is the method and the path of its request, for
    messages."""

    status: int
    body: AnswerBody
    what: str
    path: str
    date: str | None = None
    """The time of the instance, as in the header `Date`."""


class ComfyUIClient:
    """Every method may be called from any thread. Each of them raises ComfyUIUnavailable if there is no
    response, or one that ComfyUI would not send; LimitExceeded if the response exceeds `limits`, and for a
    while after that; ComfyUIError if ComfyUI reports an error."""

    def __init__(
        self,
        base_url: str,
        *,
        read_timeout_s: float = READ_TIMEOUT_S,
        absence: str = "ComfyUI is not running on the instance, or the tunnel is gone",
        uses_environment: bool = False,
        limits: InstanceLimits | None = None,
        breaches: LimitBreaches | None = None,
        on_mark: Callable[[PromptMark], None] = lambda _: None,
        login: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`absence` is the message for a refused connection. `login` returns headers that pass a login; they
        are sent if `settle` says so.

        `uses_environment`: use the proxy settings of the environment, and keep cookies. False for an
        instance: a proxy of this machine must not be used inside an SSH tunnel.

        `breaches` are shared with the websocket of the same instance. `on_mark` is called with each mark
        (PromptMark) in a response of `/queue` or `/history`, before the response is used; its exceptions are
        passed on.
        """
        self._on_mark = on_mark
        self._base_url = base_url
        self._limits = limits or InstanceLimits()
        self._breaches = breaches or LimitBreaches()
        self.definitions_values = 0
        """Number of JSON values in the last `/object_info` response; 0 if it was small."""
        self._absence = absence
        self._login = login
        self._needs_login = False
        self._timeout = (CONNECT_TIMEOUT_S, read_timeout_s)
        self._session = InstanceSession(takes_cookies=uses_environment)
        self._session.trust_env = uses_environment
        self._adapter = TimedAdapter(pool_connections=1, pool_maxsize=8)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._adapter)

    def settle(self, port: int, *, needs_login: bool) -> None:
        """Tells the port of the instance to which the requests go now, and if a login is before it."""
        self._absence = (
            f"ComfyUI does not answer on port {port} of the instance: start it there, or name its port, with "
            "-L in the ssh string"
        )
        self._needs_login = needs_login

    def login_headers(self) -> Mapping[str, str]:
        """Headers that pass the login before ComfyUI; none if there is no login."""
        return self._login() if self._needs_login else {}

    def refuse_after_breach(self) -> None:
        """Raises: LimitExceeded for a while after a limit was exceeded."""
        self._breaches.refuse()

    def close(self) -> None:
        """Closes all connections now. `Session.close` alone would leave that to the garbage collector, and a
        stored exception can keep its connections alive."""
        pools = self._adapter.poolmanager.pools
        for key in pools.keys():  # noqa: SIM118 - urllib3 refuses to iterate over them
            if pool := pools.get(key):
                pool.close()
        self._session.close()

    def probe(self) -> int:
        """Returns the number of prompts in the queue, the running one included. The cheapest request of
        ComfyUI."""
        remaining = as_object(self._get_object("/prompt").get("exec_info")).get("queue_remaining")
        if not isinstance(remaining, int):
            raise ComfyUIUnavailable("What answers on the ComfyUI port is not a ComfyUI")
        return remaining

    def submit(
        self,
        graph: Graph,
        *,
        prompt_id: str,
        client_id: str,
        extra_data: Mapping[str, Any],
        definitions: Callable[[], Mapping[str, Any]],
    ) -> Submission:
        """Submits a prompt. Not idempotent: ComfyUI runs the same id twice. `definitions` is called only
        after a refusal; the node definitions make the message more precise. Raises: PromptRefused;
        PromptCrashed."""
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": client_id, "extra_data": extra_data}
        response = self._ask("POST", "/prompt", json=body)
        if response.status in (400, 413):
            raise PromptRefused(refusal_sentence(self._lenient_object(response), graph, definitions()))
        if response.status == 500:
            response.body.close()
            raise PromptCrashed("ComfyUI fails with HTTP 500 when it receives the prompt")
        answer = self._object(_check_status(response))
        accepted_id = as_text(answer.get("prompt_id"))
        if accepted_id is None:
            raise ComfyUIUnavailable("ComfyUI answered a prompt without a prompt_id")
        return Submission(prompt_id=accepted_id, node_errors=as_object(answer.get("node_errors")))

    def post_raw(self, path: str, content: bytes, *, headers: Mapping[str, str]) -> RawAnswer:
        """Posts to ComfyUI and returns the response, whatever its status."""
        answer = self._ask("POST", path, data=content, headers=headers)
        try:
            return RawAnswer(status=answer.status, content=answer.body.whole())
        finally:
            answer.body.close()

    def queue(self) -> QueueSnapshot:
        snapshot = read_queue(self._get_object("/queue"))
        for mark in snapshot.marks:
            self._on_mark(mark)
        return snapshot

    def running_graphs(self) -> dict[str, Graph]:
        """Returns the running graphs by prompt id."""
        return read_running_graphs(self._get_object("/queue"))

    def history(self, prompt_id: str) -> HistoryEntry | None:
        """Returns the history entry of a prompt. None if the prompt is queued, running or unknown: the queue
        tells which."""
        entry = self._get_object(f"/history/{prompt_id}").get(prompt_id)
        found = read_history(prompt_id, entry) if isinstance(entry, dict) else None
        if found is not None and len(found.outputs) > MOST_OUTPUTS:
            raise self._breaches.record(too_many_outputs(MOST_OUTPUTS))
        if found is not None and found.mark is not None:
            self._on_mark(found.mark)
        return found

    def recent_history(self, limit: int) -> list[HistoryEntry]:
        entries = self._get_object("/history", params={"max_items": limit})
        return [read_history(key, entry) for key, entry in entries.items() if isinstance(entry, dict)]

    @contextmanager
    def whole_history(self) -> Iterator[Iterator[bytes]]:
        """Yields `/history` in pieces: the whole JSON may be larger than the memory."""
        response = self._request("GET", "/history", stream=True)
        with response:
            if response.status_code != 200:
                raise ComfyUIUnavailable(f"ComfyUI answered HTTP {response.status_code} to /history")
            yield _pieces(response, "its history was read")

    def delete_pending(self, prompt_id: str) -> None:
        _check_status(self._ask("POST", "/queue", json={"delete": [prompt_id]}))

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Interrupts the prompt, or whatever runs if there is no id. Versions before 0.3.57 ignore the id:
        check the queue first."""
        _check_status(self._ask("POST", "/interrupt", json={"prompt_id": prompt_id} if prompt_id else {}))

    def cancel_job(self, prompt_id: str) -> bool:
        """Removes the prompt from the queue or interrupts it, and no other one. Returns False if this version
        has no route for that."""
        route = f"/api/jobs/{prompt_id}/cancel"
        return answer_or_default(lambda: _check_status(self._ask("POST", route)), None) is not None

    def free(self, *, unload_models: bool, free_memory: bool) -> None:
        """Asks ComfyUI to free memory. It does so as soon as no prompt runs."""
        wanted = {"unload_models": unload_models, "free_memory": free_memory}
        _check_status(self._ask("POST", "/free", json=wanted))

    def definitions(self) -> dict[str, Any]:
        """Returns every node class of this ComfyUI (`/object_info`)."""
        answer = _check_status(self._ask("GET", "/object_info"))
        found = self._object(answer)
        self.definitions_values = answer.body.values
        return {name: definition for name, definition in found.items() if isinstance(definition, dict)}

    def choices(self, route: str) -> list[Any]:
        """Returns the list that a route answers with; [] if it answers with something else."""
        answer = answer_or_default(lambda: _check_status(self._ask("GET", route)), None)
        try:
            return [] if answer is None else as_list(self._json(answer))
        except ValueError:
            return []

    def replaced_classes(self) -> Replacements:
        """Returns the node classes that this ComfyUI replaces itself if it does not have them. Only newer
        versions do that."""
        none: dict[str, Any] = {}
        return read_replacements(answer_or_default(lambda: self._get_object("/node_replacements"), none))

    def directories(self) -> Directories:
        """Returns the directories of this ComfyUI, as far as it tells them: a version or a proxy may refuse
        either request."""
        paths = self._object_if_told("/internal/folder_paths")
        system = as_object(self._object_if_told("/system_stats").get("system"))
        return read_directories(paths, system.get("argv"))

    def model_directories(self) -> dict[str, list[str]]:
        """Returns the directories of each kind of model, as ComfyUI sees them; {} if it does not tell
        them."""
        told = self._object_if_told("/internal/folder_paths")
        return {
            kind: [path for path in as_list(paths) if isinstance(path, str) and path.startswith("/")]
            for kind, paths in told.items()
        }

    def clock(self) -> datetime | None:
        """Returns the time of the instance, in whole seconds; None if its responses have no date."""
        answer = _check_status(self._ask("GET", "/prompt"))
        answer.body.close()
        try:
            return parsedate_to_datetime(answer.date or "").replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            return None

    def log(self) -> str:
        """Returns the last lines of ComfyUI's log, without colours. Raises: ComfyUIError if this version does
        not serve it."""
        entries = self._get_object("/internal/logs/raw").get("entries")
        lines = (
            [entry.get("m") for entry in entries if isinstance(entry, dict)]
            if isinstance(entries, list)
            else []
        )
        return _COLOURS.sub("", "".join(line for line in lines if isinstance(line, str)))

    def upload(
        self,
        file: BinaryIO,
        name: str,
        *,
        folder: str = "input",
        subfolder: str = "",
        replaces: bool = False,
    ) -> str:
        """Uploads a file. Returns its name without the subfolder: a new name if another file has this name
        already, unless `replaces` is set. Raises: UploadNotSaved; as `_ask`."""
        fields = {"type": folder, "subfolder": subfolder} | ({"overwrite": "true"} if replaces else {})
        answer = self._ask("POST", "/upload/image", files={"image": (name, file)}, data=fields)
        if answer.status == 500:  # what ComfyUI answers if it cannot write the file
            answer.body.close()
            raise UploadNotSaved(
                "ComfyUI cannot save the file (HTTP 500 to /upload/image). Make room on the disk of the "
                "instance, and check that ComfyUI may write to its directories"
            )
        return as_text(self._object(_check_status(answer)).get("name")) or name

    def has_file(self, name: str, *, folder: str) -> bool:
        """True if the file exists. `name` may contain directories below `folder`."""
        subfolder, _, filename = name.rpartition("/")
        params = {"filename": filename, "type": folder, "subfolder": subfolder}
        answer = self._ask("HEAD", "/view", params=params)
        if answer.status == 404:
            return False
        _check_status(answer)
        return True

    @contextmanager
    def view(self, filename: str, *, subfolder: str, folder: str, start: int = 0) -> Iterator[ViewedFile]:
        """Yields the content of a file, from byte `start` on if ComfyUI supports that; a negative `start`
        counts from the end. Raises: RemoteFileMissing; RemoteFileError for any response but the file."""
        params = {"filename": filename, "subfolder": subfolder, "type": folder}
        response = self._request("GET", "/view", params=params, headers=headers_of(start), stream=True)
        with response:
            yield read_view(response, filename, start)

    def view_info(self, filename: str, *, subfolder: str, folder: str) -> ViewedFile:
        """Returns what ComfyUI tells about a file, without its content (HEAD). Raises: as `view`."""
        params = {"filename": filename, "subfolder": subfolder, "type": folder}
        with self._request("HEAD", "/view", params=params, headers=headers_of(0)) as response:
            return read_view(response, filename, 0)

    def system_stats(self) -> dict[str, Any]:
        return self._get_object("/system_stats")

    def system(self) -> System:
        return read_system(self.system_stats())

    def _object_if_told(self, path: str) -> dict[str, Any]:
        """Returns {} if the request is refused or fails. Raises: InstanceBroken."""
        try:
            return self._get_object(path)
        except InstanceBroken:
            raise
        except ComfyUIError:
            return {}

    def _get_object(self, path: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._object(_check_status(self._ask("GET", path, params=params)))

    def _ask(self, method: str, path: str, **arguments: Any) -> Answer:
        what = f"{method} {_route(path)}"
        clock = AnswerClock(self._limits.answer_s, too_slow(what, self._limits.answer_s))
        with self._translating_errors(what), self._send(method, path, clock, **arguments) as response:
            refuse_encoding(response, what)
            body = read_body(response, self._limits.of(path), self._limits.values, f"in answer to {what}")
            date = response.headers.get("Date")
            return Answer(status=response.status_code, body=body, what=what, path=path, date=date)

    def _request(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """Returns the head of a response; its body is read in pieces, with a minimum average rate."""
        what = f"{method} {_route(path)}"
        limits = self._limits
        clock = AnswerClock(limits.answer_s, too_slow_file(), bytes_per_s=limits.stream_bytes_per_s)
        with self._translating_errors(what):
            response = self._send(method, path, clock, **arguments)
            try:
                refuse_encoding(response, what)
            except LimitExceeded:
                response.close()
                raise
            return response

    def _send(self, method: str, path: str, clock: AnswerClock, **arguments: Any) -> requests.Response:
        """Raises: LimitExceeded after a breach; what `requests` raises."""
        self._breaches.refuse()
        headers = {**self.login_headers(), **arguments.pop("headers", {})}
        with timed_by(clock):
            return self._session.request(
                method,
                self._base_url + path,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
                **{**arguments, "stream": True},
            )

    @contextmanager
    def _translating_errors(self, what: str) -> Iterator[None]:
        """Translates errors of the HTTP libraries. Raises: LimitExceeded, which is recorded;
        ComfyUIUnavailable."""
        try:
            yield
        except LimitExceeded as error:
            raise self._breaches.record(error) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError) as error:
            if _is_timeout(error):
                raise ComfyUIUnavailable(f"ComfyUI does not answer ({what} timed out)") from error
            raise ComfyUIUnavailable(self._absence) from error
        except ValueError as error:  # an invalid Location header
            raise ComfyUIUnavailable(self._absence) from error

    def _json(self, answer: Answer) -> Any:
        """Raises: LimitExceeded; ValueError."""
        try:
            return answer.body.json(self._limits, f"in answer to {answer.what}")
        except LimitExceeded as error:
            raise self._breaches.record(error) from None
        finally:
            answer.body.close()

    def _object(self, answer: Answer) -> dict[str, Any]:
        try:
            value = self._json(answer)
        except ValueError as error:
            raise ComfyUIUnavailable("ComfyUI answered with something that is not JSON") from error
        if not isinstance(value, dict):
            raise ComfyUIUnavailable("ComfyUI answered with JSON that is not an object")
        return value

    def _lenient_object(self, answer: Answer) -> dict[str, Any]:
        beginning = answer.body.beginning(500)
        try:
            return self._object(answer)
        except ComfyUIUnavailable:
            message = beginning.decode("utf-8", "replace") or f"HTTP {answer.status}"
            return {"error": {"message": message}}


def answer_or_default(ask: Callable[[], Result], otherwise: Result) -> Result:
    """Returns `otherwise` if ComfyUI reports an error: for routes that some versions do not have. Raises:
    ComfyUIUnavailable, since a retry may succeed; InstanceBroken."""
    try:
        return ask()
    except (ComfyUIUnavailable, InstanceBroken):
        raise
    except ComfyUIError:
        return otherwise


def _check_status(answer: Answer) -> Answer:
    """Returns a successful response. Raises: ComfyUIUnavailable for 5xx, ComfyUIError for any other status
    than 2xx."""
    if 200 <= answer.status < 300:
        return answer
    answer.body.close()
    what = f"ComfyUI answered HTTP {answer.status} to {answer.path}"
    if answer.status == HTTPStatus.UNAUTHORIZED:
        what = f"{what}: {WANTS_LOGIN}"
    raise ComfyUIUnavailable(what) if answer.status >= 500 else ComfyUIError(what)


def _route(path: str) -> str:
    """The path for messages: without the id of a prompt, which tells a person nothing."""
    return "/history" if path.startswith("/history/") else path


def _is_timeout(error: BaseException) -> bool:
    return isinstance(error, requests.Timeout | TimeoutError | urllib3.exceptions.TimeoutError)


def _pieces(response: requests.Response, what: str) -> Iterator[bytes]:
    try:
        yield from response.iter_content(256 * 1024)
    except requests.RequestException as error:
        raise ComfyUIUnavailable(f"The connection broke while {what}") from error
