"""How long each instance was connected, and how long it worked: what its bill is made of."""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from comfyui_workflow.errors import StoreError
from comfyui_workflow.parsing.untrusted import an_object, read_json
from comfyui_workflow.stores.damage import DamageReport
from comfyui_workflow.stores.files.atomic_write import write_atomically
from comfyui_workflow.stores.files.record_format import Seal
from comfyui_workflow.stores.files.run_directory import keep_aside

log = logging.getLogger(__name__)

SAVE_EVERY_S = 30.0
_REMOVED = "(removed)"
"""In the file, in the place of an id, which has no such letters."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Over all starts of the server."""

    connected_s: float = 0.0
    busy_s: float = 0.0
    since: datetime | None = None
    """When the instance came into the directory; None where that is not known, or not one."""

    @property
    def idle_s(self) -> float:
        return max(0.0, self.connected_s - self.busy_s)

    def idle_cost(self, price_per_hour: float | None) -> float | None:
        return None if price_per_hour is None else price_per_hour * self.idle_s / 3600

    def and_also(self, connected_s: float, busy_s: float) -> "Usage":
        return replace(self, connected_s=self.connected_s + connected_s, busy_s=self.busy_s + busy_s)


@dataclass(frozen=True, kw_only=True)
class RemovedUsage:
    """Of all instances that were removed from the directory, each at the price that it had last."""

    usage: Usage = Usage()
    idle_cost: float | None = None
    """None where no price was known."""

    def and_also(self, usage: Usage, price_per_hour: float | None) -> "RemovedUsage":
        costs = [each for each in (self.idle_cost, usage.idle_cost(price_per_hour)) if each is not None]
        return RemovedUsage(
            usage=self.usage.and_also(usage.connected_s, usage.busy_s),
            idle_cost=sum(costs) if costs else None,
        )


class UsageLedger:
    """Kept in a file; what was added in the last half minute can be lost with a power cut."""

    def __init__(
        self, file: Path, clock: Callable[[], float] = time.monotonic, damage: DamageReport | None = None
    ) -> None:
        self._file = file
        self._seal = Seal()
        self._damage = damage or DamageReport()
        self._clock = clock
        self._lock = threading.Lock()
        self._usages: dict[str, Usage] = {}
        self._removed = RemovedUsage()
        self._prices: dict[str, float | None] | None = None
        """Of the instances of the directory, once it is known which there are."""
        self._is_loaded = False
        self._saved_at_s = clock()
        self._is_changed = False

    def load(self) -> None:
        """A ledger that cannot be read is kept aside and begins anew: no run depends on it.
        Raises: NewerRecord."""
        self._is_loaded = True
        try:
            entries = dict(an_object(read_json(self._seal.unseal(self._file.read_bytes(), self._file))))
        except FileNotFoundError:
            return
        except (OSError, ValueError, StoreError) as error:
            keep_aside(self._file, self._file.parent, str(error), f"{self._file.name}.damaged")
            outcome = "How long instances were connected and busy before now is lost: their costs begin anew"
            self._damage.add(self._file, error, outcome)
            return
        with self._lock:
            self._removed = _read_removed(an_object(entries.pop(_REMOVED, None)))
            self._usages = {name: _read_usage(an_object(entry)) for name, entry in entries.items()}

    def get(self, instance_id: str) -> Usage:
        with self._lock:
            return self._usages.get(instance_id, Usage())

    @property
    def removed(self) -> RemovedUsage:
        return self._removed

    def add(self, instance_id: str, *, connected_s: float, busy_s: float) -> None:
        """Nothing of an instance that was just removed."""
        with self._lock:
            if self._prices is not None and instance_id not in self._prices:
                return
            known = self._usages.get(instance_id, Usage())
            self._usages[instance_id] = known.and_also(connected_s, busy_s)
            self._is_changed = True
            is_due = self._clock() - self._saved_at_s > SAVE_EVERY_S
        if is_due:
            self.save()

    def keep_to(self, prices: Mapping[str, float | None], at: datetime) -> None:
        """These are the instances of the directory now. What another one was used for is moved to those that
        were removed; one that comes, or comes again, begins with nothing. Not heeded before `load`."""
        with self._lock:
            if not self._is_loaded:
                return
            before, self._prices = self._prices, dict(prices)
            for gone in self._usages.keys() - prices.keys():
                self._removed = self._removed.and_also(self._usages.pop(gone), (before or {}).get(gone))
                self._is_changed = True
            for new in prices.keys() - self._usages.keys():
                self._usages[new] = Usage(since=None if before is None else at)
                self._is_changed = True
        if before is not None:
            self.save()

    def save(self) -> None:
        with self._lock:
            if not self._is_changed:
                return
            entries = {name: _word_usage(usage) for name, usage in self._usages.items()}
            removed = {**_word_usage(self._removed.usage), "idle_cost": self._removed.idle_cost}
            content = json.dumps({**entries, _REMOVED: removed})
            self._saved_at_s, self._is_changed = self._clock(), False
        try:
            write_atomically(self._file, self._seal.seal(content.encode()))
        except OSError as error:
            log.warning("The usage of instances cannot be saved in %s: %s", self._file, error.strerror)


def _word_usage(usage: Usage) -> dict[str, Any]:
    since = {} if usage.since is None else {"since": usage.since.isoformat()}
    return {"connected_s": usage.connected_s, "busy_s": usage.busy_s, **since}


def _read_usage(entry: Mapping[str, object]) -> Usage:
    return Usage(
        connected_s=_amount(entry.get("connected_s")) or 0.0,
        busy_s=_amount(entry.get("busy_s")) or 0.0,
        since=_time(entry.get("since")),
    )


def _read_removed(entry: Mapping[str, object]) -> RemovedUsage:
    return RemovedUsage(usage=_read_usage(entry), idle_cost=_amount(entry.get("idle_cost")))


def _amount(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 1e12 else None  # type: ignore[operator, arg-type]


def _time(value: object) -> datetime | None:
    """With its zone, or not at all."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return time if time is not None and time.tzinfo is not None else None
