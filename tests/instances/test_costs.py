"""Costs of runs, costs of idle time, and the ledger."""

from datetime import timedelta
from pathlib import Path

import pytest

from comfyui_workflow.instances.costs import costs_of, idle_warning
from comfyui_workflow.instances.model import placement_of
from comfyui_workflow.instances.state import InstanceState, Reachability
from comfyui_workflow.instances.usage import UsageLedger
from comfyui_workflow.runs import events
from comfyui_workflow.runs.summary import RunSummary, summary_of
from comfyui_workflow.runs.usage import RemovedUsage, Usage
from comfyui_workflow.stores.files.usage import FileUsageStore
from tests.runs.test_state_machine import AT, after, new_run
from tests.scheduling.making import instance, request


def ran(name: str, price: float | None, seconds: float) -> RunSummary:
    placement = placement_of(request(), instance(name, price_per_hour=price), "cheapest")
    run = after(
        new_run(),
        events.InstanceChosen(placement=placement),
        events.ExecutionEnded(execution_s=seconds),
        events.RunCompleted(),
    )
    return summary_of(run)


def test_runs_cost_what_the_price_was_and_idling_what_it_is() -> None:
    usages = {"a": Usage(connected_s=7200, busy_s=3600)}
    found = costs_of(
        [instance("a", price_per_hour=2.0), instance("b")],
        [
            ran("a", 1.0, 1800),
            ran("a", 1.0, 900),
            ran("a", None, 60),
            ran("b", None, 30),
            summary_of(new_run()),
        ],
        lambda instance_id: usages.get(instance_id, Usage()),
        RemovedUsage(),
        AT,
    )
    (_, a), (_, b) = found.instances
    assert (found.total.runs, found.total.run_cost, found.total.idle_cost) == (4, 0.75, 2.0)
    assert (a.runs, a.gpu_s, a.run_cost, a.idle_cost) == (3, 2760.0, 0.75, 2.0)
    assert (b.runs, b.gpu_s, b.run_cost, b.idle_cost) == (1, 30.0, None, None)


def test_what_a_run_did_before_it_moved_is_paid_where_it_did_it() -> None:
    moved = new_run()
    for name, price in (("a", 1.0), ("b", 3.0), ("a", 1.0)):
        placement = placement_of(request(), instance(name, price_per_hour=price), "cheapest")
        moved = after(
            moved,
            events.InstanceChosen(placement=placement),
            events.PromptPrepared(prompt_id="p", boot_marker=None),
            events.ExecutionEnded(execution_s=1800),
            events.InstanceLeft(message="away"),
        )
    both = [instance("a"), instance("b")]
    found = costs_of(both, [summary_of(moved)], lambda _: Usage(), RemovedUsage(), AT)
    (_, a), (_, b) = found.instances
    assert (found.total.runs, found.total.gpu_s, found.total.run_cost) == (1, 5400.0, 2.5)
    assert (a.runs, a.gpu_s, a.run_cost) == (1, 3600.0, 1.0)
    assert (b.runs, b.gpu_s, b.run_cost) == (1, 1800.0, 1.5)
    assert summary_of(moved).cost(AT) == 2.5


@pytest.mark.parametrize(
    ("minutes", "limit_s", "price", "warning"),
    [
        (
            30,
            900,
            1.0,
            "a has had nothing to do for 30 min, which has cost 0.50: stop the machine if you are done",
        ),
        (30, 900, None, "a has had nothing to do for 30 min: stop the machine if you are done"),
        (10, 900, 1.0, None),
        (30, 0, 1.0, None),
        (None, 900, 1.0, None),
    ],
)
def test_an_idle_instance_is_warned_of(
    minutes: int | None, limit_s: float, price: float | None, warning: str | None
) -> None:
    idle_since = None if minutes is None else AT - timedelta(minutes=minutes)
    state = InstanceState(reachability=Reachability.READY, idle_since=idle_since)
    assert idle_warning(instance("a", price_per_hour=price), state, AT, limit_s) == warning


def test_what_a_removed_instance_has_cost_stays_in_the_total() -> None:
    removed = RemovedUsage(usage=Usage(connected_s=60, busy_s=20), idle_cost=0.5)
    runs = [ran("gone", 1.0, 1800), ran("a", 3.0, 3600)]
    came = AT + timedelta(days=1)
    since = {None: 3.0, AT: 3.0, came: None}
    for at, cost in since.items():
        found = costs_of([instance("a")], runs, lambda _, at=at: Usage(since=at), removed, came)
        assert found.instances[0][1].run_cost == cost
        assert (found.total.runs, found.total.run_cost, found.total.idle_cost) == (2, 3.5, 0.5)
        assert (found.removed.run_cost, found.removed.usage.idle_s) == (3.5 - (cost or 0), 40)


def test_the_usage_of_an_instance_that_is_added_again_begins_with_nothing(tmp_path: Path) -> None:
    ledger = UsageLedger(FileUsageStore(tmp_path / "usage.json"))
    ledger.reconcile({}, AT)  # nobody has read yet what there was
    ledger.load()
    ledger.reconcile({"a": 2.0, "b": None}, AT)
    for name in ("a", "b"):
        ledger.add(name, connected_s=3600, busy_s=1800)
    ledger.reconcile({"a": 3.0}, AT)
    ledger.reconcile({}, AT)
    ledger.add("a", connected_s=5, busy_s=0)  # its watch has just looked once more
    ledger.reconcile({"a": 9.0}, AT)
    ledger.add("a", connected_s=1, busy_s=0)
    ledger.save()
    again = UsageLedger(FileUsageStore(tmp_path / "usage.json"))
    again.load()
    for each in (ledger, again):
        assert each.get("a") == Usage(connected_s=1, busy_s=0, since=AT)
        assert each.removed == RemovedUsage(usage=Usage(connected_s=7200, busy_s=3600), idle_cost=1.5)
    again.reconcile({}, AT)  # taken out of the file while no server ran, so that its price is not known
    assert again.removed == RemovedUsage(usage=Usage(connected_s=7201, busy_s=3600), idle_cost=1.5)


def test_the_ledger_outlives_the_server(tmp_path: Path) -> None:
    ledger = UsageLedger(FileUsageStore(tmp_path / "usage.json"))
    ledger.load()
    ledger.add("a", connected_s=10, busy_s=4)
    ledger.add("a", connected_s=5, busy_s=0)
    ledger.save()
    again = UsageLedger(FileUsageStore(tmp_path / "usage.json"))
    again.load()
    assert again.get("a") == Usage(connected_s=15, busy_s=4)
    assert (again.get("a").idle_s, again.get("b")) == (11, Usage())


def test_the_ledger_is_saved_now_and_then(tmp_path: Path) -> None:
    now_s = [0.0]
    ledger = UsageLedger(FileUsageStore(tmp_path / "usage.json"), lambda: now_s[0])
    ledger.add("a", connected_s=1, busy_s=0)
    assert not (tmp_path / "usage.json").exists()
    now_s[0] = 31.0
    ledger.add("a", connected_s=1, busy_s=0)
    assert (tmp_path / "usage.json").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"a": 3}', b'{"a": {"connected_s": -1}}', b'{"a": {"connected_s": NaN}}', b"\xff"],
)
def test_a_spoiled_ledger_begins_anew(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "usage.json"
    file.write_bytes(content)
    ledger = UsageLedger(FileUsageStore(file))
    ledger.load()
    assert ledger.get("a") == Usage()
    file.unlink()
    file.mkdir()  # nor does a place that cannot be written stop anything
    ledger.load()
    ledger.add("a", connected_s=1, busy_s=1)
    ledger.save()
