"""The last log lines of the server (GET /internal/logs/raw). Only this log shows a dead worker thread."""

import threading
from collections import deque
from datetime import datetime
from typing import Any

_MOST_LINES = 300


class ServerLog:
    """Log of the last lines. Can be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[dict[str, str]] = deque(maxlen=_MOST_LINES)

    def write(self, line: str) -> None:
        with self._lock:
            self._entries.append({"t": datetime.now().isoformat(), "m": line + "\n"})

    def serialize(self) -> dict[str, Any]:
        with self._lock:
            return {"entries": list(self._entries), "size": {"cols": 80, "rows": 24}}

    def text(self) -> str:
        with self._lock:
            return "".join(f"{entry['t']} - {entry['m']}" for entry in self._entries)
