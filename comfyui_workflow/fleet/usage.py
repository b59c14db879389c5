"""How long each instance was connected, and how long it worked: what its bill is made of."""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from comfyui_workflow.stores.atomic import write_atomically
from comfyui_workflow.untrusted import an_object, read_json

log = logging.getLogger(__name__)

SAVE_EVERY_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Since the instance came into the directory, over all starts of the server."""

    connected_s: float = 0.0
    busy_s: float = 0.0

    @property
    def idle_s(self) -> float:
        return max(0.0, self.connected_s - self.busy_s)


class UsageLedger:
    """Kept in a file; what was added in the last half minute can be lost with a power cut."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._lock = threading.Lock()
        self._usages: dict[str, Usage] = {}
        self._saved_at_s = clock()
        self._is_changed = False

    def load(self) -> None:
        """A ledger that cannot be read begins anew: no run depends on it."""
        try:
            entries = an_object(read_json(self._file.read_bytes()))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            log.error("The usage of instances in %s cannot be read, and begins anew: %s", self._file, error)
            return
        with self._lock:
            self._usages = {name: _read_usage(an_object(entry)) for name, entry in entries.items()}

    def get(self, instance_id: str) -> Usage:
        with self._lock:
            return self._usages.get(instance_id, Usage())

    def add(self, instance_id: str, *, connected_s: float, busy_s: float) -> None:
        with self._lock:
            known = self._usages.get(instance_id, Usage())
            self._usages[instance_id] = Usage(
                connected_s=known.connected_s + connected_s, busy_s=known.busy_s + busy_s
            )
            self._is_changed = True
            is_due = self._clock() - self._saved_at_s > SAVE_EVERY_S
        if is_due:
            self.save()

    def save(self) -> None:
        with self._lock:
            if not self._is_changed:
                return
            content = json.dumps({name: asdict(usage) for name, usage in self._usages.items()})
            self._saved_at_s, self._is_changed = self._clock(), False
        try:
            write_atomically(self._file, content.encode())
        except OSError as error:
            log.warning("The usage of instances cannot be saved in %s: %s", self._file, error.strerror)


def _read_usage(entry: Mapping[str, object]) -> Usage:
    return Usage(connected_s=_seconds(entry.get("connected_s")), busy_s=_seconds(entry.get("busy_s")))


def _seconds(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 1e12 else 0.0  # type: ignore[operator, arg-type]
