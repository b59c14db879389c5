"""Execution log: a JSON line at the start and at the end of each prompt. Tests count executions by it."""

import json
import threading
import time
from pathlib import Path
from typing import Any

from comfyui_workflow.sandbox.history import without_secrets
from comfyui_workflow.sandbox.prompt_queue import QueueItem


class ExecutionLog:
    """Appends lines to a file and flushes each; without a path it writes nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()

    def started(self, item: QueueItem) -> None:
        extra_data = without_secrets(item)[3]
        self._write(
            {"event": "start", "client_id": extra_data.get("client_id"), "extra_data": extra_data}, item
        )

    def ended(self, item: QueueItem, *, status: str, nodes_executed: list[str]) -> None:
        """Writes the end line. `status` is "success", "error" or "interrupted". A prompt that is lost in a
        restart has no end line."""
        self._write({"event": "end", "status": status, "nodes_executed": nodes_executed}, item)

    def _write(self, record: dict[str, Any], item: QueueItem) -> None:
        if self._path is None:
            return
        line = json.dumps({"prompt_id": item[1], "at": time.time(), **record})
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
