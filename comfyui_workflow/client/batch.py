"""Runs many graphs on one ComfyUI, with a limited number of them in its queue.

How it works: one thread submits the graphs in order. A semaphore has one slot for each prompt that may be in
ComfyUI's queue; a slot is freed when its prompt has ended. A thread waits for each submitted prompt.
"""

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
    """Outcome of the graph at `index`: exactly one of `entry` and `error` is set. A graph that was not
    submitted because an earlier one failed has the error `Stopped`."""

    index: int
    prompt_id: str | None = None
    entry: HistoryEntry | None = None
    error: WorkflowError | None = None

    @property
    def is_success(self) -> bool:
        return self.entry is not None


def wait_for_result(prompts: Prompts, index: int, prompt_id: str, timeout_s: float | None) -> BatchResult:
    """Waits for a submitted prompt and returns its result; errors are in the result."""
    try:
        entry = prompts.wait(prompt_id, timeout_s)
    except WorkflowError as error:
        return BatchResult(index=index, prompt_id=prompt_id, error=error)
    return BatchResult(index=index, prompt_id=prompt_id, entry=entry)


class Batch:
    """One execution of many graphs; see the module docstring."""

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
        self._slots = threading.Semaphore(at_once)
        self._cancel = CancelToken()
        self._has_failed = threading.Event()
        self._completed: SimpleQueue[Future[BatchResult | None]] = SimpleQueue()

    def results(self) -> Iterator[BatchResult]:
        """Yields the results as they complete. If the caller stops early, nothing more is submitted; prompts
        in ComfyUI's queue continue."""
        with ThreadPoolExecutor(self._at_once + 1, thread_name_prefix="batch") as threads:
            try:
                self._start(threads, self._submit_all, threads)
                remaining = len(self._graphs)
                while remaining:
                    result = self._completed.get().result()
                    if result is not None:
                        remaining -= 1
                        yield result
            finally:
                self._cancel.cancel("the batch was left")

    def _start(
        self, threads: ThreadPoolExecutor, work: Callable[..., BatchResult | None], *arguments: object
    ) -> None:
        threads.submit(work, *arguments).add_done_callback(self._completed.put)

    def _submit_all(self, threads: ThreadPoolExecutor) -> None:
        """Submits each graph as soon as a slot is free, and not before its `stagger_s` is over."""
        submit_at_s = time.monotonic()
        for index, graph in enumerate(self._graphs):
            self._acquire_slot()
            if self._cancel.wait(max(0.0, submit_at_s - time.monotonic())):
                return
            submit_at_s = time.monotonic() + self._stagger_s
            self._submit(threads, index, graph)

    def _submit(self, threads: ThreadPoolExecutor, index: int, graph: Graph) -> None:
        try:
            if self._stop_at_error and self._has_failed.is_set():
                raise Stopped("Not submitted, because an earlier graph of the batch failed")
            prompt = self._prompts.send(checked_graph(graph), self._cancel)
        except WorkflowError as error:
            self._start(threads, self._fail, index, error)
        else:
            self._start(threads, self._finish, index, prompt)

    def _fail(self, index: int, error: WorkflowError, prompt_id: str | None = None) -> BatchResult:
        self._has_failed.set()
        self._slots.release()
        return BatchResult(index=index, prompt_id=prompt_id, error=error)

    def _finish(self, index: int, prompt: ActivePrompt) -> BatchResult:
        try:
            entry = self._prompts.finish(prompt, self._timeout_s, self._cancel)
        except WorkflowError as error:
            return self._fail(index, error, prompt.prompt_id)
        self._slots.release()
        return BatchResult(index=index, prompt_id=prompt.prompt_id, entry=entry)

    def _acquire_slot(self) -> None:
        with self._cancel.on_cancel(self._slots.release):
            self._slots.acquire()
