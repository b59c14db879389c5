"""Contract of a store of webhooks, for every implementation."""

from collections.abc import Callable
from pathlib import Path

import pytest

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.webhook import Delivery, DeliveryAttempt, after_attempt, new_delivery
from comfyui_workflow.stores.base import WebhookStore
from comfyui_workflow.stores.files.webhooks import FileWebhookStore
from comfyui_workflow.stores.memory import MemoryWebhookStore
from tests.runs.test_state_machine import AT

Start = Callable[[], WebhookStore]


@pytest.fixture(params=["memory", "files"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Each call makes a new store on the same records, as after a restart. The test calls `open`."""
    memory = MemoryWebhookStore()
    return lambda: memory if request.param == "memory" else FileWebhookStore(tmp_path / "webhooks")


def delivery(number: int) -> Delivery:
    delivery_id = f"webhook_170000000{number}_00abc"
    return new_delivery("https://a.example/hook", "run", 4, AT, delivery_id)


def test_what_was_added_is_there_after_a_restart_oldest_first(start: Start) -> None:
    store = start()
    assert store.open() == []
    for number in (2, 1):
        store.add(delivery(number), b"\x00\xff %d" % number)
    again = start()
    assert again.open() == [delivery(1), delivery(2)]
    for each in (store, again):
        assert each.content(delivery(2).delivery_id) == b"\x00\xff 2"


def test_one_is_kept_as_it_is_now(start: Start) -> None:
    store = start()
    store.open()
    store.add(delivery(1), b"{}")
    attempted = after_attempt(delivery(1), DeliveryAttempt(at=AT, status=500), patience_s=3600)
    store.save(attempted)
    assert start().open() == [attempted]
    assert store.content(attempted.delivery_id) == b"{}"


def test_what_was_removed_is_gone(start: Start) -> None:
    store = start()
    store.open()
    for number in (1, 2):
        store.add(delivery(number), b"{}")
    for _ in range(2):
        store.remove(delivery(1).delivery_id)
    assert start().open() == [delivery(2)]
    with pytest.raises(StoreError, match="cannot be read"):
        store.content(delivery(1).delivery_id)
