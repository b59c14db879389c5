"""A ComfyUI, from Python: prompts that run once, waits that end, files that arrive whole."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from comfyui_workflow.client.batch import Batch, BatchResult, waited_for
from comfyui_workflow.client.calls import is_loopback, read_url
from comfyui_workflow.client.download import land, landing_place
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
    """One ComfyUI. Every method may be called from any thread.

    What finds no ComfyUI is tried again for `patience_s`, and raises ComfyUIUnavailable after that;
    ComfyUIError when ComfyUI says that it cannot. Constructing it asks nothing; a websocket is opened when
    something is first waited for.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8188",
        *,
        client_id: str | None = None,
        patience_s: float = 10.0,
        answer_timeout_s: float = 30.0,
    ) -> None:
        """`client_id`: ComfyUI tells what happens to a prompt to the client of that id. No two may have the
        same at a time, so a new one is the default. Raises: InvalidRequest when the URL is none."""
        self.url = read_url(url, "http://127.0.0.1:8188")
        self.client_id = client_id or str(uuid.uuid4())
        self._patience_s = patience_s
        self._client = ComfyUIClient(
            self.url,
            read_timeout_s=answer_timeout_s,
            absence=f"No ComfyUI answers at {self.url}",
            heeds_environment=not is_loopback(self.url),
        )
        self._prompts = Prompts(self._client, self.url, self.client_id, patience_s)
        self._validator = Validator(self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Prompts go on."""
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
        """The prompt is in ComfyUI's queue, exactly once: when an answer is lost, ComfyUI is asked whether it
        has the prompt before it is sent again. With a `prompt_id` (a UUID) of your own it is asked first, so
        that a script that was interrupted can call this again.

        `editor_file` is what the editor saved; pictures open there again when it goes along.
        `node_errors` of the answer tells of outputs that ComfyUI left out, while it runs the rest.
        Raises: InvalidGraph, and PromptRefused in ComfyUI's words; ComfyUIUnavailable, with a `prompt_id`
        when ComfyUI may have the prompt all the same.
        """
        extra = with_editor_file(extra_data or {}, editor_file)
        chosen_id = prompt_id or new_prompt_id()
        return self._prompts.submit(
            checked_graph(graph), chosen_id, is_new=prompt_id is None, extra_data=extra
        )

    def run(self, graph: Graph, *, timeout_s: float | None = 600.0) -> HistoryEntry:
        """Submit and wait. Raises: as both."""
        return self._prompts.finish(self._prompts.send(checked_graph(graph)), timeout_s)

    def wait(self, prompt_id: str, *, timeout_s: float | None = 600.0) -> HistoryEntry:
        """How the prompt ended, when that was a success. None waits for ever.
        Raises: PromptFailed with the node and ComfyUI's reason; PromptInterrupted; PromptLost for one that is
        in neither queue nor history; TimedOut, while the prompt goes on; InstanceBroken when ComfyUI's worker
        is dead; ComfyUIUnavailable when ComfyUI is away for ten minutes."""
        return self._prompts.wait(prompt_id, timeout_s)

    def wait_all(self, prompt_ids: Iterable[str], *, timeout_s: float | None = 600.0) -> list[BatchResult]:
        """One result for each prompt that was submitted, in their order; what goes wrong with one is in its
        result. They are waited for one by one, each for `timeout_s` from when those before it are over."""
        numbered = enumerate(prompt_ids)
        return [waited_for(self._prompts, index, prompt_id, timeout_s) for index, prompt_id in numbered]

    def batch(
        self,
        graphs: Sequence[Graph],
        *,
        at_once: int = 2,
        stagger_s: float = 0.0,
        stop_at_error: bool = False,
        timeout_s: float | None = 600.0,
    ) -> list[BatchResult]:
        """One result for each graph, in their order; what goes wrong with one is in its result. The options
        are those of `as_completed`."""
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
        """Submits the graphs in their order, and gives each result as it comes.

        At most `at_once` of them are in ComfyUI's queue at a time: two keep it busy, and leave room for
        others. `stagger_s` lies at least between two submissions. With `stop_at_error` nothing is submitted
        once one has failed. `timeout_s` is for each prompt, from its submission; one that takes longer goes
        on in ComfyUI, and gives its place to the next. Leaving the loop early submits nothing more.
        """
        if at_once < 1:
            raise InvalidRequest("at_once must be 1 at least")
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
        """Ask ComfyUI to stop this prompt and no other: it is dropped where it waits, interrupted where it
        runs. Without an id it stops whatever runs, whoever sent it; what waits goes on. Returns at once; a
        node that is at work may finish first. One that is over stays as it is."""
        if prompt_id is None:
            self._with_backoff(self._client.interrupt)
        else:
            self._prompts.interrupt(prompt_id)

    def cancel(self, prompt_id: str, *, timeout_s: float | None = 60.0) -> HistoryEntry | None:
        """Interrupt it until it has ended. How it did, which may be a success; None when it never ran.
        Raises: TimedOut."""
        return self._prompts.cancel(prompt_id, timeout_s)

    def queue(self) -> QueueSnapshot:
        """Prompt ids, those that run and those that wait in the order they will; `position` counts those
        ahead of one."""
        return self._with_backoff(self._client.queue)

    def history(self, prompt_id: str) -> HistoryEntry | None:
        """How a prompt ended; None for one that waits, runs or is unknown."""
        return self._with_backoff(lambda: self._client.history(prompt_id))

    def recent_history(self, limit: int = 100) -> list[HistoryEntry]:
        """The prompts that ended last, the latest one last."""
        return self._with_backoff(lambda: self._client.recent_history(limit))

    def system_stats(self) -> System:
        """Its version and devices, with memory in bytes."""
        return self._with_backoff(self._client.system)

    def definitions(self) -> dict[str, Any]:
        """Every node class that it has (`/object_info`); a megabyte."""
        return self._with_backoff(self._client.definitions)

    def free(self, *, unload_models: bool = True, free_memory: bool = True) -> None:
        """ComfyUI unloads its models, and forgets results that it kept for the next prompt, as soon as
        nothing runs."""
        self._with_backoff(lambda: self._client.free(unload_models=unload_models, free_memory=free_memory))

    def validate(self, graph: object, *, structure_only: bool = False) -> Verdict:
        """What ComfyUI would say of the graph, all of it; nothing is submitted. `would_run` says whether it
        would, `findings` why not, and what you should know. With `structure_only` nothing is asked."""
        return self._with_backoff(lambda: self._validator.verdict(graph, structure_only=structure_only))

    def monitor(self) -> Monitor:
        """Calls of your own for what ComfyUI says on its websocket; `with` it, or `connect` it."""
        return Monitor(self._prompts.feed, self._prompts.renew_if_deaf)

    def upload(
        self, path: Path | str, *, subfolder: str = "", folder: str = "input", replace: bool = False
    ) -> str:
        """What to name the file in a graph (LoadImage and the like). Another name than its own where
        ComfyUI has a different file of that name, unless this one is to `replace` it.
        Raises: InvalidRequest when it cannot be read."""
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
        """Every file that the prompt made, under whatever key its nodes show it; texts too. Empty for one
        that has not ended. `previews`: what PreviewImage nodes show, too."""
        entry = self.history(prompt_id)
        return () if entry is None else wanted_outputs(entry.outputs, previews)

    def download(self, outputs: HistoryEntry | Sequence[OutputFile], directory: Path | str) -> list[Path]:
        """Each file into a directory here, below it by its subfolder. Nothing is overwritten: the same
        content is the same file, a different one becomes `name (1).png`. Of an entry, previews are left out.
        Raises: RemoteFileMissing; RemoteFileError for a name that leads elsewhere, and for half a file;
        StoreError when it cannot be written here."""
        files = wanted_outputs(outputs.outputs, False) if isinstance(outputs, HistoryEntry) else outputs
        return [self._download(file, Path(directory)) for file in files]

    def _download(self, file: OutputFile, directory: Path) -> Path:
        landing_place(file)  # a name that leads elsewhere is not even asked for
        if file.text is not None:
            return land([file.text.encode()], file, directory)

        def fetch() -> Path:
            with self._client.view(file.filename, subfolder=file.subfolder, folder=file.folder) as pieces:
                return land(pieces, file, directory)

        return self._with_backoff(fetch)

    def _with_backoff(self, ask: Callable[[], Answer]) -> Answer:
        return with_backoff(ask, self._patience_s)
