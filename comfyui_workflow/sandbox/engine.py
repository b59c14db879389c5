"""The queue and the worker thread behind the routes: one life of a ComfyUI process."""

import threading
import time
import traceback
from typing import Any

from comfyui_workflow.sandbox.execution import Abandoned, PromptExecution, Signals, Workshop
from comfyui_workflow.sandbox.execution_log import ExecutionLog
from comfyui_workflow.sandbox.faults import FaultBoard
from comfyui_workflow.sandbox.history import History
from comfyui_workflow.sandbox.node import Folders, NodeClasses
from comfyui_workflow.sandbox.prompt_queue import PromptQueue, QueueItem
from comfyui_workflow.sandbox.result_cache import ResultCache
from comfyui_workflow.sandbox.server_log import ServerLog
from comfyui_workflow.sandbox.websockets import SocketHub


class Engine:
    """Takes prompts in, executes them one by one. A restart or reset drops it and makes another.

    The methods may be called from the event loop: none of them waits for a node.
    """

    def __init__(
        self,
        *,
        folders: Folders,
        node_classes: NodeClasses,
        hub: SocketHub,
        faults: FaultBoard,
        execution_log: ExecutionLog,
        has_previews: bool,
    ) -> None:
        self.queue = PromptQueue(on_change=self._tell_status)
        self.history = History()
        self.log = ServerLog()
        self._signals = Signals()
        self._workshop = Workshop(
            folders=folders,
            node_classes=node_classes,
            hub=hub,
            faults=faults,
            cache=ResultCache(folders=folders, node_classes=node_classes),
            signals=self._signals,
            has_previews=has_previews,
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
        """Stop as if the process were killed: nothing more of the running prompt is seen. Does not wait."""
        self._signals.stopping.set()
        self.queue.close()

    def wait_until_over(self, *, timeout_s: float) -> None:
        """After `abandon`: wait for the node that still runs, lest it writes files later."""
        self._worker.join(timeout_s)

    def take_number(self) -> int:
        """Every POST /prompt uses one up, also those that are refused."""
        number, self._next_number = self._next_number, self._next_number + 1
        return number

    def interrupt(self, prompt_id: object | None) -> None:
        """Stop the running prompt if it is this one; None means whichever runs. Pending ones are not hit."""
        if prompt_id is None or self._workshop.faults.is_old or self.queue.is_running(prompt_id):
            self._signals.interrupt.set()

    def free_memory(self) -> None:
        """Drop the results of the last prompt, as soon as no prompt runs."""
        self._wants_free_memory.set()

    def queue_info(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": self.queue.remaining}}

    def running_node_of(self, client_id: str) -> str | None:
        """The node that runs, if the running prompt is of this client: what a reconnecting socket is told."""
        return self._running_node if client_id == self._client_id else None

    def _work(self) -> None:
        """The worker thread. What a node raises beyond Exception ends it, and with it all progress."""
        try:
            while taken := self.queue.take(is_held=lambda: self._workshop.faults.now.hold):
                self._execute(*taken)
        except (Abandoned, SystemExit):
            return
        except BaseException:  # noqa: BLE001 - the thread dies of it, and its last words are all one gets to see
            self.log.write(f"Exception in thread Thread-2 (prompt_worker):\n{traceback.format_exc()}")

    def _execute(self, key: int, item: QueueItem) -> None:
        if self._wants_free_memory.is_set():
            self._wants_free_memory.clear()
            self._workshop.cache.clear()
        started_at = time.monotonic()
        self._execution_log.started(item)
        execution = PromptExecution(item, self._workshop, on_node=self._remember_node)
        self._client_id = execution.client_id
        execution.run(dies=self._workshop.faults.take_worker_death())
        self._running_node = None
        self._execution_log.ended(item, status=execution.ending, nodes_executed=execution.executed)
        self.queue.finish(key, lambda running: self._record(running, execution))
        if execution.client_id is not None:
            over = {"node": None, "prompt_id": execution.prompt_id}
            self._workshop.hub.send_soon("executing", over, execution.client_id)
        self.log.write(f"Prompt executed in {time.monotonic() - started_at:.2f} seconds")

    def _record(self, item: QueueItem, execution: PromptExecution) -> None:
        is_success = not execution.has_failed
        status = {
            "status_str": "success" if is_success else "error",
            "completed": is_success,
            "messages": execution.messages,
        }
        outputs = self._workshop.faults.renamed(execution.outputs)
        self.history.add(item, outputs=outputs, meta=execution.meta, status=status)

    def _remember_node(self, node_id: str | None) -> None:
        self._running_node = node_id

    def _tell_status(self) -> None:
        self._workshop.hub.send_soon("status", {"status": self.queue_info()})
