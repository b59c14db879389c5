"""The last log lines of the server (GET /internal/logs/raw). Only this log shows a dead worker thread, and
the reason of a status 500."""

import threading
from collections import deque
from datetime import datetime
from typing import Any, Literal

from comfyui_workflow.sandbox.faults import FaultBoard

_MOST_LINES = 300
_COLOURS = {"INFO": "\x1b[32m", "WARNING": "\x1b[1m\x1b[33m", "ERROR": "\x1b[1m\x1b[31m"}


class ServerLog:
    """Log of the last lines. Can be used from any thread. Newer versions write the level, in colour."""

    def __init__(self, faults: FaultBoard) -> None:
        self._faults = faults
        self._lock = threading.Lock()
        self._entries: deque[dict[str, str]] = deque(maxlen=_MOST_LINES)

    def write(self, text: str, *, level: Literal["INFO", "WARNING", "ERROR"] | None = "INFO") -> None:
        """Adds one entry, which can have many lines. Without a level it is what a thread printed."""
        is_coloured = level and self._faults.version.has("0.33.0")
        prefix = f"{_COLOURS[level]}[{level}]\x1b[0m " if level and is_coloured else ""
        entry = {"t": datetime.now().isoformat(), "m": f"{prefix}{text}\n"}
        with self._lock:
            self._entries.append(entry)

    def serialize(self) -> dict[str, Any]:
        with self._lock:
            return {"entries": list(self._entries), "size": {"cols": 80, "rows": 24}}

    def text(self) -> str:
        with self._lock:
            return "".join(f"{entry['t']} - {entry['m']}" for entry in self._entries)
