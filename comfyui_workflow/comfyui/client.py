"""The HTTP routes of one ComfyUI, typed. Nothing here retries; errors say whether a retry makes sense."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

import requests

from comfyui_workflow.comfyui.directories import Directories, read_directories
from comfyui_workflow.comfyui.history import HistoryEntry, read_history
from comfyui_workflow.comfyui.queue import Mark, QueueSnapshot, read_queue
from comfyui_workflow.comfyui.refusals import refusal_sentence
from comfyui_workflow.comfyui.system import System, read_system
from comfyui_workflow.errors import (
    ComfyUIError,
    ComfyUIUnavailable,
    PromptRefused,
    RemoteFileError,
    RemoteFileMissing,
)
from comfyui_workflow.runs.model import Graph
from comfyui_workflow.untrusted import a_list, a_text, an_object, read_json

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Submission:
    """ComfyUI's answer to a prompt. `node_errors` tells of output nodes that it dropped; the rest runs."""

    prompt_id: str
    node_errors: Mapping[str, Any]


class ComfyUIClient:
    """Every method may be called from any thread, and raises ComfyUIUnavailable when there is no answer, or
    none that ComfyUI would give; ComfyUIError when ComfyUI says that it cannot."""

    def __init__(
        self,
        base_url: str,
        *,
        read_timeout_s: float = READ_TIMEOUT_S,
        absence: str = "ComfyUI is not running on the instance, or the tunnel is gone",
        heeds_environment: bool = False,
        on_mark: Callable[[Mark], None] = lambda _: None,
    ) -> None:
        """`absence` is the sentence for when nothing answers. A proxy of this machine, which its environment
        names, has no business in a tunnel. `on_mark` is called with each mark of ours that is seen at a
        prompt, before anything is made of it; what it raises is raised."""
        self._on_mark = on_mark
        self._base_url = base_url
        self._absence = absence
        self._timeout = (CONNECT_TIMEOUT_S, read_timeout_s)
        self._session = requests.Session()
        self._session.trust_env = heeds_environment
        self._adapter = requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=8)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._adapter)

    def close(self) -> None:
        """Hangs up now. The session alone would leave that to the garbage collector, and an error that
        somebody keeps holds its connections back from that."""
        pools = self._adapter.poolmanager.pools
        for key in pools.keys():  # noqa: SIM118 - urllib3 refuses to iterate over them
            if pool := pools.get(key):
                pool.close()
        self._session.close()

    def probe(self) -> int:
        """Prompts in the queue, the running one included: the cheapest question."""
        remaining = an_object(self._get_object("/prompt").get("exec_info")).get("queue_remaining")
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
        """Not idempotent: ComfyUI runs the same id twice. `definitions` are asked for at a refusal only.
        Raises: PromptRefused, in words that the node definitions help to find."""
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": client_id, "extra_data": extra_data}
        response = self._request("POST", "/prompt", json=body)
        if response.status_code in (400, 413):
            raise PromptRefused(refusal_sentence(_lenient_object(response), graph, definitions()))
        answer = _object(_good(response))
        accepted_id = a_text(answer.get("prompt_id"))
        if accepted_id is None:
            raise ComfyUIUnavailable("ComfyUI answered a prompt without a prompt_id")
        return Submission(prompt_id=accepted_id, node_errors=an_object(answer.get("node_errors")))

    def queue(self) -> QueueSnapshot:
        snapshot = read_queue(self._get_object("/queue"))
        for mark in snapshot.marks:
            self._on_mark(mark)
        return snapshot

    def history(self, prompt_id: str) -> HistoryEntry | None:
        """None for a prompt that is queued, running or unknown: the queue tells which."""
        entry = self._get_object(f"/history/{prompt_id}").get(prompt_id)
        if not isinstance(entry, dict):
            return None
        known = read_history(prompt_id, entry)
        if known.mark is not None:
            self._on_mark(known.mark)
        return known

    def recent_history(self, limit: int) -> list[HistoryEntry]:
        entries = self._get_object("/history", params={"max_items": limit})
        return [read_history(key, entry) for key, entry in entries.items() if isinstance(entry, dict)]

    @contextmanager
    def whole_history(self) -> Iterator[Iterator[bytes]]:
        """`/history` as it comes, in pieces: as JSON it may be larger than the memory."""
        response = self._request("GET", "/history", stream=True)
        with response:
            yield _pieces(_good(response), "its history was read")

    def delete_pending(self, prompt_id: str) -> None:
        _good(self._request("POST", "/queue", json={"delete": [prompt_id]}))

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Without an id whatever runs; before 0.3.57 with one too: ask the queue first."""
        _good(self._request("POST", "/interrupt", json={"prompt_id": prompt_id} if prompt_id else {}))

    def free(self, *, unload_models: bool, free_memory: bool) -> None:
        """ComfyUI does it as soon as no prompt runs."""
        wanted = {"unload_models": unload_models, "free_memory": free_memory}
        _good(self._request("POST", "/free", json=wanted))

    def definitions(self) -> dict[str, Any]:
        """Every node class this ComfyUI has (`/object_info`)."""
        found = self._get_object("/object_info")
        return {name: definition for name, definition in found.items() if isinstance(definition, dict)}

    def choices(self, route: str) -> list[Any]:
        """What a route has to choose from; nothing where it does not answer with a list."""
        content = answer_or(lambda: _good(self._request("GET", route)).content, b"")
        try:
            return a_list(read_json(content))
        except ValueError:
            return []

    def replaced_classes(self) -> frozenset[str]:
        """Classes that this ComfyUI has not got any more, and replaces by itself; only newer ones do."""
        return answer_or(lambda: frozenset(self._get_object("/node_replacements")), frozenset())

    def directories(self) -> Directories:
        """Raises: ComfyUIError where this ComfyUI does not tell them."""
        paths = self._get_object("/internal/folder_paths")
        return read_directories(paths, an_object(self.system_stats().get("system")).get("argv"))

    def log(self) -> str:
        """The last lines of its log. Raises: ComfyUIError where this ComfyUI does not show it."""
        entries = self._get_object("/internal/logs/raw").get("entries")
        lines = (
            [entry.get("m") for entry in entries if isinstance(entry, dict)]
            if isinstance(entries, list)
            else []
        )
        return "".join(line for line in lines if isinstance(line, str))

    def upload(
        self,
        file: BinaryIO,
        name: str,
        *,
        folder: str = "input",
        subfolder: str = "",
        replaces: bool = False,
    ) -> str:
        """The name ComfyUI gave the file: another one when a different file of that name is there, unless
        this one replaces it. Without the subfolder."""
        fields = {"type": folder, "subfolder": subfolder} | ({"overwrite": "true"} if replaces else {})
        response = self._request("POST", "/upload/image", files={"image": (name, file)}, data=fields)
        return a_text(_object(_good(response)).get("name")) or name

    def has_file(self, name: str, *, folder: str) -> bool:
        """`name` may have directories before it, below `folder`."""
        subfolder, _, filename = name.rpartition("/")
        params = {"filename": filename, "type": folder, "subfolder": subfolder}
        response = self._request("HEAD", "/view", params=params)
        if response.status_code == 404:
            return False
        _good(response)
        return True

    @contextmanager
    def view(self, filename: str, *, subfolder: str, folder: str) -> Iterator[Iterator[bytes]]:
        """The content of a file, in pieces. Raises: RemoteFileMissing."""
        params = {"filename": filename, "subfolder": subfolder, "type": folder}
        response = self._request("GET", "/view", params=params, stream=True)
        with response:
            if response.status_code == 404:
                raise RemoteFileMissing(f"{filename} is not on the instance any more")
            if response.status_code >= 400:
                raise RemoteFileError(f"ComfyUI does not give out {filename} (HTTP {response.status_code})")
            yield _pieces(response, "a file was being fetched")

    def system_stats(self) -> dict[str, Any]:
        return self._get_object("/system_stats")

    def system(self) -> System:
        return read_system(self.system_stats())

    def _get_object(self, path: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return _object(_good(self._request("GET", path, params=params)))

    def _request(self, method: str, path: str, **arguments: Any) -> requests.Response:
        try:
            return self._session.request(
                method, self._base_url + path, timeout=self._timeout, allow_redirects=False, **arguments
            )
        except requests.Timeout as error:
            raise ComfyUIUnavailable(f"ComfyUI does not answer ({method} {path} timed out)") from error
        except (requests.RequestException, ValueError) as error:  # ValueError: a Location that is none
            raise ComfyUIUnavailable(self._absence) from error


def answer_or(ask: Callable[[], Answer], otherwise: Answer) -> Answer:
    """For what not every ComfyUI tells. Raises: ComfyUIUnavailable, since that may pass."""
    try:
        return ask()
    except ComfyUIUnavailable:
        raise
    except ComfyUIError:
        return otherwise


def _good(response: requests.Response) -> requests.Response:
    """Raises: ComfyUIUnavailable for 5xx, ComfyUIError for what else is not 200."""
    if 200 <= response.status_code < 300:
        return response
    what = f"ComfyUI answered HTTP {response.status_code} to {response.request.path_url.split('?')[0]}"
    raise ComfyUIUnavailable(what) if response.status_code >= 500 else ComfyUIError(what)


def _object(response: requests.Response) -> dict[str, Any]:
    try:
        answer = read_json(response.content)
    except ValueError as error:
        raise ComfyUIUnavailable("ComfyUI answered with something that is not JSON") from error
    if not isinstance(answer, dict):
        raise ComfyUIUnavailable("ComfyUI answered with JSON that is not an object")
    return answer


def _lenient_object(response: requests.Response) -> dict[str, Any]:
    try:
        return _object(response)
    except ComfyUIUnavailable:
        return {
            "error": {
                "message": response.content[:500].decode("utf-8", "replace") or f"HTTP {response.status_code}"
            }
        }


def _pieces(response: requests.Response, what: str) -> Iterator[bytes]:
    try:
        yield from response.iter_content(256 * 1024)
    except requests.RequestException as error:
        raise ComfyUIUnavailable(f"The connection broke while {what}") from error
