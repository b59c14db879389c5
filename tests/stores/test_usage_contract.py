"""Contract of a store of usage, for every implementation."""

from collections.abc import Callable
from pathlib import Path

import pytest

from comfyui_workflow.runs.usage import RemovedUsage, Usage, UsageTotals
from comfyui_workflow.stores.base import UsageStore
from comfyui_workflow.stores.files.usage import FileUsageStore
from comfyui_workflow.stores.memory import MemoryUsageStore
from tests.runs.test_state_machine import AT

Start = Callable[[], UsageStore]


@pytest.fixture(params=["memory", "files"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Each call makes a new store on the same records, as after a restart. The test calls `open`."""
    memory = MemoryUsageStore()
    return lambda: memory if request.param == "memory" else FileUsageStore(tmp_path / "usage.json")


TOTALS = [
    UsageTotals(usages={"a": Usage(connected_s=3.5, busy_s=1), "b": Usage(since=AT)}),
    UsageTotals(removed=RemovedUsage(usage=Usage(connected_s=60, busy_s=20), idle_cost=0.5)),
    UsageTotals(usages={"a": Usage()}, removed=RemovedUsage(usage=Usage(busy_s=0.1))),
]


def test_at_first_there_is_none(start: Start) -> None:
    assert start().open() == UsageTotals()


def test_what_was_saved_last_is_there_after_a_restart(start: Start) -> None:
    store = start()
    store.open()
    for totals in TOTALS:
        store.save(totals)
        assert start().open() == totals
