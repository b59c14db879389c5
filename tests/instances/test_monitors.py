"""What is known of instances, while their entries change."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from comfyui_workflow.errors import ConnectionFailed
from comfyui_workflow.instances.monitor import Surroundings, WatchOptions
from comfyui_workflow.instances.monitors import Watches
from comfyui_workflow.instances.state import Reachability
from comfyui_workflow.instances.usage import UsageLedger
from comfyui_workflow.sessions.session import InstanceKey, Link
from comfyui_workflow.ssh.pool import Pool
from comfyui_workflow.stores.files.usage import FileUsageStore
from tests.scheduling.making import instance


def refuse(key: InstanceKey) -> Link:
    raise ConnectionFailed(f"{key.address.host} cannot be reached")


@pytest.fixture
def watches(tmp_path: Path) -> Iterator[Watches]:
    made = Watches(
        Surroundings(
            links=Pool(refuse),
            ledger=UsageLedger(FileUsageStore(tmp_path / "usage.json")),
            options=WatchOptions(),
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


def test_a_connection_is_kept_as_the_entry_says(watches: Watches) -> None:
    kept = replace(instance("a"), keep_connected=True)
    watches.load({"a": kept, "b": instance("b")})
    until(lambda: watches.state("a").reachability is Reachability.UNREACHABLE)
    assert watches.state("b").reachability is Reachability.UNKNOWN
    watches.keep_to({"a": instance("a"), "b": replace(instance("b"), keep_connected=True)})
    until(lambda: watches.state("a").reachability is Reachability.UNKNOWN)
    until(lambda: watches.state("b").reachability is Reachability.UNREACHABLE)


def test_another_price_changes_nothing_of_what_is_known_and_another_address_all(watches: Watches) -> None:
    watches.want(instance("a"))
    until(lambda: watches.state("a").reachability is Reachability.UNREACHABLE)
    dearer = replace(instance("a"), name="b", price_per_hour=2.0, tags=("x",), enabled=False)
    watches.keep_to({"a": dearer})
    assert watches.state("a").reachability is Reachability.UNREACHABLE
    watches.want(dearer)
    assert watches.state("a").reachability is Reachability.UNREACHABLE
    watches.keep_to({"a": instance("a", ssh_connection="ssh root@elsewhere.example")})
    until(lambda: watches.state("a").trouble == "elsewhere.example cannot be reached")
    watches.keep_to({})
    assert watches.state("a").reachability is Reachability.UNKNOWN
