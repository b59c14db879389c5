"""Connected and busy seconds of instances, which idle costs are computed from. Pure; to JSON and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from comfyui_workflow.errors import StoreError
from comfyui_workflow.parsing.untrusted import as_object, read_json

_REMOVED = "(removed)"
"""Key of the removed instances in the record. Ids of instances have no parentheses, so it cannot be one."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Usage of one instance, over all starts of the server."""

    connected_s: float = 0.0
    busy_s: float = 0.0
    since: datetime | None = None
    """When the instance was added; None if unknown."""

    @property
    def idle_s(self) -> float:
        return max(0.0, self.connected_s - self.busy_s)

    def idle_cost(self, price_per_hour: float | None) -> float | None:
        return None if price_per_hour is None else price_per_hour * self.idle_s / 3600

    def plus(self, connected_s: float, busy_s: float) -> "Usage":
        return replace(self, connected_s=self.connected_s + connected_s, busy_s=self.busy_s + busy_s)


@dataclass(frozen=True, kw_only=True)
class RemovedUsage:
    """Total usage of all removed instances, each at its last price."""

    usage: Usage = Usage()
    idle_cost: float | None = None
    """None if no price was known."""

    def plus(self, usage: Usage, price_per_hour: float | None) -> "RemovedUsage":
        costs = [each for each in (self.idle_cost, usage.idle_cost(price_per_hour)) if each is not None]
        return RemovedUsage(
            usage=self.usage.plus(usage.connected_s, usage.busy_s),
            idle_cost=sum(costs) if costs else None,
        )


@dataclass(frozen=True, kw_only=True)
class UsageTotals:
    """The record that is stored."""

    usages: Mapping[str, Usage] = field(default_factory=dict)
    """By instance id."""
    removed: RemovedUsage = RemovedUsage()


def encode_usage(totals: UsageTotals) -> bytes:
    entries = {name: _document(usage) for name, usage in totals.usages.items()}
    removed = {**_document(totals.removed.usage), "idle_cost": totals.removed.idle_cost}
    return json.dumps({**entries, _REMOVED: removed}).encode()


def decode_usage(content: bytes) -> UsageTotals:
    """An invalid number counts as zero. Raises: StoreError."""
    try:
        entries = dict(as_object(read_json(content)))
        removed = as_object(entries.pop(_REMOVED, None))
        usages = {name: _read_usage(as_object(entry)) for name, entry in entries.items()}
    except ValueError as error:
        raise StoreError(f"not the record of usage: {error}") from error
    idle_cost = _amount(removed.get("idle_cost"))
    return UsageTotals(usages=usages, removed=RemovedUsage(usage=_read_usage(removed), idle_cost=idle_cost))


def _document(usage: Usage) -> dict[str, Any]:
    since = {} if usage.since is None else {"since": usage.since.isoformat()}
    return {"connected_s": usage.connected_s, "busy_s": usage.busy_s, **since}


def _read_usage(entry: Mapping[str, object]) -> Usage:
    return Usage(
        connected_s=_amount(entry.get("connected_s")) or 0.0,
        busy_s=_amount(entry.get("busy_s")) or 0.0,
        since=_time(entry.get("since")),
    )


def _amount(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 1e12 else None  # type: ignore[operator, arg-type]


def _time(value: object) -> datetime | None:
    """Parses a time with a time zone; None for anything else."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return time if time is not None and time.tzinfo is not None else None
