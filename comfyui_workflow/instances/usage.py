"""Ledger of the time that each instance is connected and busy."""

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from comfyui_workflow.runs.usage import RemovedUsage, Usage, UsageTotals
from comfyui_workflow.stores.base import UsageStore

SAVE_EVERY_S = 30.0


class UsageLedger:
    """Usage per instance id, saved every SAVE_EVERY_S: a power cut can lose the usage of the last half
    minute. Thread-safe."""

    def __init__(self, store: UsageStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._save_lock = threading.Lock()
        """Held while the totals are written, so an older state never replaces a newer one."""
        self._usages: dict[str, Usage] = {}
        self._removed = RemovedUsage()
        self._prices: dict[str, float | None] | None = None
        """Prices of the named instances; None before the first `reconcile`."""
        self._is_loaded = False
        self._saved_at_s = clock()
        self._is_changed = False

    def load(self) -> None:
        """Loads the stored usage. Raises: NewerRecord."""
        totals = self._store.open()
        with self._lock:
            self._is_loaded = True
            self._usages, self._removed = dict(totals.usages), totals.removed

    def get(self, instance_id: str) -> Usage:
        with self._lock:
            return self._usages.get(instance_id, Usage())

    @property
    def removed(self) -> RemovedUsage:
        return self._removed

    def add(self, instance_id: str, *, connected_s: float, busy_s: float) -> None:
        """Adds seconds to the usage of an instance; ignores an instance that was just removed."""
        with self._lock:
            if self._prices is not None and instance_id not in self._prices:
                return
            known = self._usages.get(instance_id, Usage())
            self._usages[instance_id] = known.plus(connected_s, busy_s)
            self._is_changed = True
            is_due = self._clock() - self._saved_at_s > SAVE_EVERY_S
        if is_due:
            self.save()

    def reconcile(self, prices: Mapping[str, float | None], at: datetime) -> None:
        """Updates the named instances and their prices. The usage of a removed instance is moved to the total
        of removed instances; an instance that is added, or added again, starts at zero. Ignored before
        `load`."""
        with self._lock:
            if not self._is_loaded:
                return
            before, self._prices = self._prices, dict(prices)
            for removed in self._usages.keys() - prices.keys():
                self._removed = self._removed.plus(self._usages.pop(removed), (before or {}).get(removed))
                self._is_changed = True
            for added in prices.keys() - self._usages.keys():
                self._usages[added] = Usage(since=None if before is None else at)
                self._is_changed = True
        if before is not None:
            self.save()

    def save(self) -> None:
        with self._save_lock:
            with self._lock:
                if not self._is_changed:
                    return
                totals = UsageTotals(usages=dict(self._usages), removed=self._removed)
                self._saved_at_s, self._is_changed = self._clock(), False
            self._store.save(totals)
