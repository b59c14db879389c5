"""Python client of a ComfyUI: exactly-once prompts, waits with timeouts, complete downloads."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from comfyui_workflow.client.batch import Batch, BatchResult, wait_for_result
from comfyui_workflow.client.calls import is_loopback, read_url
from comfyui_workflow.client.download import relative_path, save_file
from comfyui_workflow.client.monitor import Monitor
from comfyui_workflow.client.prompts import Prompts
from comfyui_workflow.client.submit import with_backoff
from comfyui_workflow.client.validate import Validator, checked_graph, with_editor_file
from comfyui_workflow.comfyui.client import ComfyUIClient, Submission
from comfyui_workflow.comfyui.history import HistoryEntry, wanted_outputs
from comfyui_workflow.comfyui.prompt_lookup import new_prompt_id
from comfyui_workflow.comfyui.queue import QueueSnapshot
from comfyui_workflow.comfyui.system import System
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.runs.model import OutputFile
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.validation.preflight import Verdict

Answer = TypeVar("Answer")


class ComfyUI:
    """Client of one ComfyUI. Thread-safe.

    If ComfyUI cannot be reached, a request is retried for `patience_s`; then ComfyUIUnavailable is raised.
    ComfyUIError is raised if ComfyUI refuses a request. The constructor sends no request; the websocket is
    opened at the first wait.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8188",
        *,
        client_id: str | None = None,
        patience_s: float = 10.0,
        answer_timeout_s: float = 30.0,
    ) -> None:
        """`client_id`: ComfyUI sends the events of a prompt to the client with that id. Two clients must not
        use the same id at the same time, so the default is a new id. Raises: InvalidRequest for an invalid
        URL."""
        self.url = read_url(url, "http://127.0.0.1:8188")
        self.client_id = client_id or str(uuid.uuid4())
        self._patience_s = patience_s
        self._client = ComfyUIClient(
            self.url,
            read_timeout_s=answer_timeout_s,
            absence=f"No ComfyUI answers at {self.url}",
            uses_environment=not is_loopback(self.url),
        )
        self._prompts = Prompts(self._client, self.url, self.client_id, patience_s)
        self._validator = Validator(self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections. Submitted prompts continue."""
        self._prompts.close()
        self._client.close()

    def submit(
        self,
        graph: Graph,
        *,
        prompt_id: str | None = None,
        editor_file: Mapping[str, Any] | None = None,
        extra_data: Mapping[str, Any] | None = None,
    ) -> Submission:
        """Submits a graph exactly once: if a response is lost, ComfyUI is asked for the prompt before it is
        sent again. With your own `prompt_id` (a UUID), ComfyUI is asked before the first send, so that an
        interrupted script can call this again.

        `editor_file` is the workflow as the editor saved it; with it, the output pictures can be opened in
        the editor. `node_errors` of the result lists outputs that ComfyUI skips while it runs the rest.
        Raises: InvalidGraph; PromptRefused, with ComfyUI's message; ComfyUIUnavailable, with a `prompt_id` if
        ComfyUI may have the prompt.
        """
        extra = with_editor_file(extra_data or {}, editor_file)
        chosen_id = prompt_id or new_prompt_id()
        return self._prompts.submit(
            checked_graph(graph), chosen_id, is_new=prompt_id is None, extra_data=extra
        )

    def run(self, graph: Graph, *, timeout_s: float | None = 600.0) -> HistoryEntry:
        """Submits a graph and waits for it. Raises: as `submit` and `wait`."""
        return self._prompts.finish(self._prompts.send(checked_graph(graph)), timeout_s)

    def wait(self, prompt_id: str, *, timeout_s: float | None = 600.0) -> HistoryEntry:
        """Waits for a prompt and returns its history entry if it succeeded. `timeout_s` None: no timeout.
        Raises: PromptFailed, with the node and ComfyUI's reason; PromptInterrupted; PromptLost if the prompt
        is in neither queue nor history; TimedOut (the prompt continues); InstanceBroken if ComfyUI's worker
        is dead; ComfyUIUnavailable if ComfyUI is away for ten minutes."""
        return self._prompts.wait(prompt_id, timeout_s)

    def wait_all(self, prompt_ids: Iterable[str], *, timeout_s: float | None = 600.0) -> list[BatchResult]:
        """Waits for submitted prompts; returns one result for each, in order. An error of a prompt is in its
        result. The prompts are waited for one after the other; each `timeout_s` starts when the previous wait
        is over."""
        numbered = enumerate(prompt_ids)
        return [wait_for_result(self._prompts, index, prompt_id, timeout_s) for index, prompt_id in numbered]

    def batch(
        self,
        graphs: Sequence[Graph],
        *,
        at_once: int = 2,
        stagger_s: float = 0.0,
        stop_at_error: bool = False,
        timeout_s: float | None = 600.0,
    ) -> list[BatchResult]:
        """Runs graphs and returns one result for each, in order. An error of a graph is in its result. The
        options are those of `as_completed`."""
        results = self.as_completed(
            graphs, at_once=at_once, stagger_s=stagger_s, stop_at_error=stop_at_error, timeout_s=timeout_s
        )
        return sorted(results, key=lambda result: result.index)

    def as_completed(
        self,
        graphs: Sequence[Graph],
        *,
        at_once: int = 2,
        stagger_s: float = 0.0,
        stop_at_error: bool = False,
        timeout_s: float | None = 600.0,
    ) -> Iterator[BatchResult]:
        """Submits the graphs in order, and yields each result as it completes.

        At most `at_once` of them are in ComfyUI's queue at a time: two keep it busy, and leave room for other
        clients. `stagger_s` is the minimum time between two submissions. With `stop_at_error` nothing more is
        submitted after a failure. `timeout_s` is for each prompt, from its submission; a prompt that takes
        longer continues in ComfyUI, and the next graph is submitted. If you leave the loop early, nothing
        more is submitted.
        """
        if at_once < 1:
            raise InvalidRequest("at_once must be at least 1")
        batch = Batch(
            self._prompts,
            list(graphs),
            at_once=at_once,
            stagger_s=stagger_s,
            stop_at_error=stop_at_error,
            timeout_s=timeout_s,
        )
        return batch.results()

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Asks ComfyUI to stop this prompt and no other: a waiting prompt is removed from the queue, a
        running prompt is interrupted, an ended prompt is not changed. Without an id: interrupts the running
        prompt of any client; waiting prompts are not changed. Returns at once; the current node may finish
        first."""
        if prompt_id is None:
            self._with_backoff(self._client.interrupt)
        else:
            self._prompts.interrupt(prompt_id)

    def cancel(self, prompt_id: str, *, timeout_s: float | None = 60.0) -> HistoryEntry | None:
        """Interrupts the prompt until it has ended. Returns its history entry, which may be a success; None
        if the prompt never ran. Raises: TimedOut."""
        return self._prompts.cancel(prompt_id, timeout_s)

    def queue(self) -> QueueSnapshot:
        """Returns the ids of the running prompts, and of the waiting ones in execution order. `position` is
        the number of prompts ahead of one."""
        return self._with_backoff(self._client.queue)

    def history(self, prompt_id: str) -> HistoryEntry | None:
        """Returns the history entry of an ended prompt; None if it waits, runs or is unknown."""
        return self._with_backoff(lambda: self._client.history(prompt_id))

    def recent_history(self, limit: int = 100) -> list[HistoryEntry]:
        """Returns the entries of the last ended prompts, the latest one last."""
        return self._with_backoff(lambda: self._client.recent_history(limit))

    def system_stats(self) -> System:
        """Returns the version and the devices of ComfyUI, with memory in bytes."""
        return self._with_backoff(self._client.system)

    def definitions(self) -> dict[str, Any]:
        """Returns all node classes (`/object_info`), about a megabyte."""
        return self._with_backoff(self._client.definitions)

    def free(self, *, unload_models: bool = True, free_memory: bool = True) -> None:
        """Asks ComfyUI to unload its models and to drop its cached results. It does so as soon as no prompt
        runs."""
        self._with_backoff(lambda: self._client.free(unload_models=unload_models, free_memory=free_memory))

    def validate(self, graph: object, *, structure_only: bool = False) -> Verdict:
        """Validates a graph and returns all findings; nothing is submitted. `would_run`: True if ComfyUI
        would run it; `findings`: errors and warnings. With `structure_only` no request is sent."""
        return self._with_backoff(lambda: self._validator.verdict(graph, structure_only=structure_only))

    def monitor(self) -> Monitor:
        """Returns a monitor that calls your functions for ComfyUI's websocket messages. Start it with `with`
        or `connect`."""
        return Monitor(self._prompts.feed, self._prompts.renew_if_deaf)

    def upload(
        self, path: Path | str, *, subfolder: str = "", folder: str = "input", replace: bool = False
    ) -> str:
        """Uploads a file and returns its name for a graph (LoadImage and similar nodes). The name is changed
        if ComfyUI has a different file with that name, unless `replace` is set.
        Raises: InvalidRequest if the file cannot be read."""
        local = Path(path)

        def upload() -> str:
            with local.open("rb") as file:
                return self._client.upload(
                    file, local.name, folder=folder, subfolder=subfolder, replaces=replace
                )

        try:
            name = self._with_backoff(upload)
        except OSError as error:
            raise InvalidRequest(f"{local} cannot be read: {error.strerror}") from error
        return f"{subfolder.rstrip('/')}/{name}" if subfolder else name

    def output_files(self, prompt_id: str, *, previews: bool = False) -> tuple[OutputFile, ...]:
        """Returns every file that the prompt made, under any output key, and its texts. Empty if the prompt
        has not ended. `previews`: include the pictures of PreviewImage nodes."""
        entry = self.history(prompt_id)
        return () if entry is None else wanted_outputs(entry.outputs, previews)

    def download(self, outputs: HistoryEntry | Sequence[OutputFile], directory: Path | str) -> list[Path]:
        """Downloads files into a local directory, each in its subfolder. No file is overwritten: a file with
        the same content is kept, a different one becomes `name (1).png`. For an entry, previews are left out.
        Raises: RemoteFileMissing; RemoteFileError for an unsafe name and for an incomplete file; StoreError
        if the file cannot be written."""
        files = wanted_outputs(outputs.outputs, False) if isinstance(outputs, HistoryEntry) else outputs
        return [self._download(file, Path(directory)) for file in files]

    def _download(self, file: OutputFile, directory: Path) -> Path:
        relative_path(file)  # an unsafe name is refused before the request
        if file.text is not None:
            return save_file([file.text.encode()], file, directory)

        def fetch() -> Path:
            with self._client.view(file.filename, subfolder=file.subfolder, folder=file.folder) as pieces:
                return save_file(pieces, file, directory)

        return self._with_backoff(fetch)

    def _with_backoff(self, ask: Callable[[], Answer]) -> Answer:
        return with_backoff(ask, self._patience_s)
