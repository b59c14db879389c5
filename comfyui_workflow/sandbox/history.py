"""History of finished prompts, for GET /history."""

import threading
from typing import Any

from comfyui_workflow.sandbox.prompt_queue import QueueItem

_MOST_ENTRIES = 10_000
_SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")

HistoryEntry = dict[str, Any]


def without_secrets(item: QueueItem) -> QueueItem:
    """Returns the item without the comfy.org keys that a client can send in its extra data."""
    number, prompt_id, graph, extra_data, outputs = item
    shown = {key: value for key, value in extra_data.items() if key not in _SECRETS}
    return number, prompt_id, graph, shown, outputs


class History:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, HistoryEntry] = {}

    def add(
        self, item: QueueItem, *, outputs: dict[str, Any], meta: dict[str, Any], status: dict[str, Any]
    ) -> None:
        kept = without_secrets(item)
        with self._lock:
            if len(self._entries) > _MOST_ENTRIES:
                self._entries.pop(next(iter(self._entries)))
            self._entries[item[1]] = {"prompt": kept, "outputs": outputs, "status": status, "meta": meta}

    def one(self, prompt_id: str) -> dict[str, HistoryEntry]:
        with self._lock:
            return {prompt_id: self._entries[prompt_id]} if prompt_id in self._entries else {}

    def page(self, *, max_items: int | None, offset: int) -> dict[str, HistoryEntry]:
        """Returns entries, oldest first. `max_items` without an offset (-1) selects the newest ones."""
        with self._lock:
            entries = list(self._entries.items())
        if offset < 0:
            offset = max(0, len(entries) - max_items) if max_items is not None else 0
        end = len(entries) if max_items is None else offset + max_items
        return dict(entries[offset:end])

    def delete(self, prompt_id: object) -> None:
        with self._lock:
            self._entries.pop(str(prompt_id), None)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
