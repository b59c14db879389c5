"""States of instances while their entries change."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from comfyui_workflow.errors import ConnectionFailed
from comfyui_workflow.instances.monitor import MonitorContext, MonitorOptions
from comfyui_workflow.instances.monitors import InstanceMonitors
from comfyui_workflow.instances.state import Reachability
from comfyui_workflow.instances.usage import UsageLedger
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey
from comfyui_workflow.ssh.pool import Pool
from comfyui_workflow.stores.files.usage import FileUsageStore
from tests.scheduling.making import instance


def refuse(key: InstanceKey) -> ComfyUISession:
    raise ConnectionFailed(f"{key.address.host} cannot be reached")


@pytest.fixture
def monitors(tmp_path: Path) -> Iterator[InstanceMonitors]:
    made = InstanceMonitors(
        MonitorContext(
            sessions=Pool(refuse),
            ledger=UsageLedger(FileUsageStore(tmp_path / "usage.json")),
            options=MonitorOptions(),
            is_given_up=lambda _: None,
            tell=lambda: None,
        )
    )
    yield made
    made.close(5)


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_connection_is_kept_as_the_entry_says(monitors: InstanceMonitors) -> None:
    kept = replace(instance("a"), keep_connected=True)
    monitors.load({"a": kept, "b": instance("b")})
    until(lambda: monitors.state("a").reachability is Reachability.UNREACHABLE)
    assert monitors.state("b").reachability is Reachability.UNKNOWN
    monitors.reconcile({"a": instance("a"), "b": replace(instance("b"), keep_connected=True)})
    until(lambda: monitors.state("a").reachability is Reachability.UNKNOWN)
    until(lambda: monitors.state("b").reachability is Reachability.UNREACHABLE)


def test_another_price_changes_nothing_of_what_is_known_and_another_address_all(
    monitors: InstanceMonitors,
) -> None:
    monitors.acquire(instance("a"))
    until(lambda: monitors.state("a").reachability is Reachability.UNREACHABLE)
    dearer = replace(instance("a"), name="b", price_per_hour=2.0, tags=("x",), enabled=False)
    monitors.reconcile({"a": dearer})
    assert monitors.state("a").reachability is Reachability.UNREACHABLE
    monitors.acquire(dearer)
    assert monitors.state("a").reachability is Reachability.UNREACHABLE
    monitors.reconcile({"a": instance("a", ssh_connection="ssh root@elsewhere.example")})
    until(lambda: monitors.state("a").trouble == "elsewhere.example cannot be reached")
    monitors.reconcile({})
    assert monitors.state("a").reachability is Reachability.UNKNOWN
