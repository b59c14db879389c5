"""Many graphs through one ComfyUI, a few at a time in its queue, so that it is neither idle nor flooded."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

from comfyui_workflow.client.prompts import ActivePrompt, Prompts
from comfyui_workflow.client.validate import checked_graph
from comfyui_workflow.comfyui.history import HistoryEntry
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import Stopped, WorkflowError
from comfyui_workflow.workflows.graph import Graph


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """What became of the graph at `index`: exactly one of `entry` and `error` is there. A graph that was left
    out, since an earlier one failed, has `Stopped` for its error."""

    index: int
    prompt_id: str | None = None
    entry: HistoryEntry | None = None
    error: WorkflowError | None = None

    @property
    def is_success(self) -> bool:
        return self.entry is not None


def waited_for(prompts: Prompts, index: int, prompt_id: str, timeout_s: float | None) -> BatchResult:
    """Of a prompt that was submitted."""
    try:
        entry = prompts.wait(prompt_id, timeout_s)
    except WorkflowError as error:
        return BatchResult(index=index, prompt_id=prompt_id, error=error)
    return BatchResult(index=index, prompt_id=prompt_id, entry=entry)


class Batch:
    """One thread submits, in the order of the graphs; another waits for each prompt that is under way."""

    def __init__(
        self,
        prompts: Prompts,
        graphs: Sequence[Graph],
        *,
        at_once: int,
        stagger_s: float,
        stop_at_error: bool,
        timeout_s: float | None,
    ) -> None:
        self._prompts = prompts
        self._graphs = graphs
        self._at_once = at_once
        self._stagger_s = stagger_s
        self._stop_at_error = stop_at_error
        self._timeout_s = timeout_s
        self._places = threading.Semaphore(at_once)
        self._is_over = CancelToken()
        self._has_failed = threading.Event()
        self._arrived: SimpleQueue[Future[BatchResult | None]] = SimpleQueue()

    def results(self) -> Iterator[BatchResult]:
        """As they come. Who leaves early ends the submitting; what is in ComfyUI's queue goes on."""
        with ThreadPoolExecutor(self._at_once + 1, thread_name_prefix="batch") as threads:
            try:
                self._start(threads, self._feed, threads)
                missing = len(self._graphs)
                while missing:
                    result = self._arrived.get().result()
                    if result is not None:
                        missing -= 1
                        yield result
            finally:
                self._is_over.cancel("the batch was left")

    def _start(
        self, threads: ThreadPoolExecutor, work: Callable[..., BatchResult | None], *arguments: object
    ) -> None:
        threads.submit(work, *arguments).add_done_callback(self._arrived.put)

    def _feed(self, threads: ThreadPoolExecutor) -> None:
        """Submits each graph as soon as there is a place for it."""
        submit_at_s = time.monotonic()
        for index, graph in enumerate(self._graphs):
            self._take_place()
            if self._is_over.wait(max(0.0, submit_at_s - time.monotonic())):
                return
            submit_at_s = time.monotonic() + self._stagger_s
            self._submit(threads, index, graph)

    def _submit(self, threads: ThreadPoolExecutor, index: int, graph: Graph) -> None:
        try:
            if self._stop_at_error and self._has_failed.is_set():
                raise Stopped("Not submitted, since an earlier graph of the batch failed")
            under_way = self._prompts.send(checked_graph(graph), self._is_over)
        except WorkflowError as error:
            self._start(threads, self._fail, index, error)
        else:
            self._start(threads, self._finish, index, under_way)

    def _fail(self, index: int, error: WorkflowError, prompt_id: str | None = None) -> BatchResult:
        self._has_failed.set()
        self._places.release()
        return BatchResult(index=index, prompt_id=prompt_id, error=error)

    def _finish(self, index: int, under_way: ActivePrompt) -> BatchResult:
        try:
            entry = self._prompts.finish(under_way, self._timeout_s, self._is_over)
        except WorkflowError as error:
            return self._fail(index, error, under_way.prompt_id)
        self._places.release()
        return BatchResult(index=index, prompt_id=under_way.prompt_id, entry=entry)

    def _take_place(self) -> None:
        with self._is_over.calling(self._places.release):
            self._places.acquire()
