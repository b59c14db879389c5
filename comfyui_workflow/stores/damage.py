"""Report of damaged files in the data directory and their handling, for the log and the API."""

import logging
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from comfyui_workflow.runs.document import serialize_time

log = logging.getLogger(__name__)

MOST_KEPT = 1000


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One damaged file."""

    found_at: datetime
    path: str
    reason: str
    """Why the file cannot be read."""
    outcome: str
    """Sentence: what this server did instead, and what a person can do."""


class DamageReport:
    """Damage found since the start of this server. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: list[Damage] = []

    def add(self, path: object, reason: object, outcome: str) -> None:
        log.error("Damaged: %r (%s). %s", str(path), reason, outcome)
        found = Damage(found_at=datetime.now(UTC), path=str(path), reason=str(reason), outcome=outcome)
        with self._lock:
            self._found = [*self._found, found][-MOST_KEPT:]

    def all(self) -> list[Damage]:
        """Returns the newest 1000 entries, oldest first."""
        with self._lock:
            return list(self._found)


def damage_document(damage: Damage) -> dict[str, Any]:
    return {
        "found_at": serialize_time(damage.found_at),
        "path": damage.path,
        "reason": damage.reason,
        "outcome": damage.outcome,
    }
