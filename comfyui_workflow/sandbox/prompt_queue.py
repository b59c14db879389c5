"""Queue of pending prompts and the running prompt, in ComfyUI's order and with its peculiarities."""

import copy
import heapq
import threading
from collections.abc import Callable
from typing import Any

from comfyui_workflow.sandbox.links import Graph

QueueItem = tuple[float, str, Graph, dict[str, Any], list[str]]
"""(number, prompt_id, graph, extra_data, ids of the output nodes to execute)"""


class PromptQueue:
    """A heap of items: the lowest number first, then the lowest prompt id.

    If two items have the same number and id, the heap compares the graphs, so `put` raises TypeError although
    both items are queued. ComfyUI does the same.
    """

    def __init__(self, *, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._changed = threading.Condition(threading.RLock())
        self._pending: list[QueueItem] = []
        self._running: dict[int, QueueItem] = {}
        self._taken = 0
        self._is_closed = False

    def put(self, item: QueueItem) -> None:
        with self._changed:
            heapq.heappush(self._pending, item)
            self._on_change()
            self._changed.notify_all()

    def take(self, *, is_held: Callable[[], bool]) -> tuple[int, QueueItem] | None:
        """Waits for the next prompt and marks it as running. Returns None when the queue is closed."""
        with self._changed:
            while not self._is_closed and (not self._pending or is_held()):
                self._changed.wait(timeout=1.0)
            if self._is_closed:
                return None
            item = heapq.heappop(self._pending)
            key, self._taken = self._taken, self._taken + 1
            self._running[key] = copy.deepcopy(item)
            self._on_change()
            return key, item

    def finish(self, key: int, record: Callable[[QueueItem], None]) -> None:
        """Removes the running prompt, calls `record` with it, then calls `on_change`."""
        with self._changed:
            record(self._running.pop(key))
            self._on_change()

    def wake(self) -> None:
        """Wakes up `take` after a change that affects `is_held`."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def delete(self, prompt_id: object) -> bool:
        """Removes one pending prompt with this id, even if several exist; never the running one. Returns
        False if there is none."""
        with self._changed:
            for index, item in enumerate(self._pending):
                if item[1] == prompt_id:
                    self._pending.pop(index)
                    heapq.heapify(self._pending)
                    if not self._pending:
                        self._on_change()  # ComfyUI notifies twice if this was the last pending prompt
                    self._on_change()
                    return True
        return False

    def clear(self) -> None:
        with self._changed:
            self._pending = []
            self._on_change()

    def is_running(self, prompt_id: object) -> bool:
        with self._changed:
            return any(item[1] == prompt_id for item in self._running.values())

    @property
    def remaining(self) -> int:
        with self._changed:
            return len(self._pending) + len(self._running)

    def serialize(self) -> dict[str, list[QueueItem]]:
        """Returns the response to GET /queue. Pending prompts are in the order of the heap, not sorted."""
        with self._changed:
            return {"queue_running": list(self._running.values()), "queue_pending": list(self._pending)}
