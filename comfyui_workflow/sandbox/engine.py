"""Queue and worker thread behind the routes. One engine corresponds to one ComfyUI process."""

import threading
import time
import traceback
import uuid
from typing import Any

from comfyui_workflow.sandbox.catalog import Catalog
from comfyui_workflow.sandbox.execution import Abandoned, PromptExecution, SharedResources, Signals
from comfyui_workflow.sandbox.execution_log import ExecutionLog
from comfyui_workflow.sandbox.faults import FaultBoard
from comfyui_workflow.sandbox.history import History
from comfyui_workflow.sandbox.prompt_queue import PromptQueue, QueueItem
from comfyui_workflow.sandbox.result_cache import ResultCache
from comfyui_workflow.sandbox.server_log import ServerLog
from comfyui_workflow.sandbox.websockets import SocketHub


class Engine:
    """Queues prompts and executes them one by one. A restart or reset replaces the engine by a new one.

    All methods except `wait_until_over` can be called on the event loop: they do not wait for a node.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        hub: SocketHub,
        faults: FaultBoard,
        execution_log: ExecutionLog,
        has_previews: bool,
    ) -> None:
        self.queue = PromptQueue(on_change=self._send_status)
        self.history = History()
        self.log = ServerLog(faults)
        self._signals = Signals()
        self._resources = SharedResources(
            catalog=catalog,
            hub=hub,
            faults=faults,
            cache=ResultCache(catalog),
            signals=self._signals,
            has_previews=has_previews,
            queue_again=self._queue_again,
        )
        self._execution_log = execution_log
        self._next_number = 0
        self._wants_free_memory = threading.Event()
        self._client_id: str | None = None
        self._running_node: str | None = None
        self._worker = threading.Thread(target=self._work, name="prompt_worker", daemon=True)

    def start(self) -> None:
        self._worker.start()

    def abandon(self) -> None:
        """Stops as if the process were killed: no further effect of the running prompt. Does not wait."""
        self._signals.stopping.set()
        self.queue.close()

    def wait_until_over(self, *, timeout_s: float) -> None:
        """Waits after `abandon` for the running node, so that it does not write files later."""
        self._worker.join(timeout_s)

    def take_number(self) -> int:
        """Returns the next prompt number. Every POST /prompt uses one, also a refused one."""
        number, self._next_number = self._next_number, self._next_number + 1
        return number

    def _queue_again(self, item: QueueItem) -> None:
        """As node packs do: a negative number is before all others."""
        self.queue.put((-self.take_number(), str(uuid.uuid4()), *item[2:]))

    def interrupt(self, prompt_id: object | None) -> None:
        """Interrupts the running prompt if it has this id (None: any id). Keeps pending prompts."""
        if (
            prompt_id is None
            or not self._resources.faults.version.knows_prompt_ids
            or self.queue.is_running(prompt_id)
        ):
            self._signals.interrupt.set()

    def cancel(self, prompt_id: str) -> bool:
        """Removes a pending prompt or interrupts the running one. Returns False for any other id."""
        if self.queue.delete(prompt_id):
            return True
        is_running = self.queue.is_running(prompt_id)
        if is_running:
            self._signals.interrupt.set()
        return is_running

    def free_memory(self) -> None:
        """Clears the cached results as soon as no prompt runs."""
        self._wants_free_memory.set()

    def queue_info(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": self.queue.remaining}}

    def running_node_of(self, client_id: str) -> str | None:
        """Returns the running node if its prompt belongs to this client, for a reconnecting websocket."""
        return self._running_node if client_id == self._client_id else None

    def _work(self) -> None:
        """Runs the worker thread. An exception of a node that is not an `Exception` ends the thread; then no
        prompt is executed any more."""
        try:
            while taken := self.queue.take(is_held=lambda: self._resources.faults.now.hold):
                self._execute(*taken)
        except (Abandoned, SystemExit):
            return
        except BaseException:  # noqa: BLE001 - ends the thread; the log is the only visible trace
            trace = traceback.format_exc()
            self.log.write(f"Exception in thread Thread-2 (prompt_worker):\n{trace}", level=None)

    def _execute(self, key: int, item: QueueItem) -> None:
        if self._wants_free_memory.is_set():
            self._wants_free_memory.clear()
            self._resources.cache.clear()
        started_at = time.monotonic()
        self._execution_log.started(item)
        execution = PromptExecution(item, self._resources, on_node=self._remember_node)
        self._client_id = execution.client_id
        execution.run(kills_worker=self._resources.faults.take_worker_death())
        self._running_node = None
        self._execution_log.ended(item, status=execution.ending, nodes_executed=execution.executed)
        self.queue.finish(key, lambda running: self._record(running, execution))
        if execution.client_id is not None:
            finished = {"node": None, "prompt_id": execution.prompt_id}
            self._resources.hub.send_soon("executing", finished, execution.client_id)
        self.log.write(f"Prompt executed in {time.monotonic() - started_at:.2f} seconds")

    def _record(self, item: QueueItem, execution: PromptExecution) -> None:
        is_success = not execution.has_failed
        status = {
            "status_str": "success" if is_success else "error",
            "completed": is_success,
            "messages": execution.messages,
        }
        outputs = self._resources.faults.renamed(execution.outputs)
        self.history.add(item, outputs=outputs, meta=execution.meta, status=status)

    def _remember_node(self, node_id: str | None) -> None:
        self._running_node = node_id

    def _send_status(self) -> None:
        self._resources.hub.send_soon("status", {"status": self.queue_info()})
