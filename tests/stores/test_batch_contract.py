"""Contract of a store of batches, for every implementation."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from comfyui_workflow.errors import BatchNotFound
from comfyui_workflow.runs.batch import Batch, OnError, new_batch_id
from comfyui_workflow.stores.base import BatchStore
from comfyui_workflow.stores.files.batches import FileBatchStore
from comfyui_workflow.stores.memory import MemoryBatchStore
from tests.runs.test_state_machine import AT

Start = Callable[[], BatchStore]


@pytest.fixture(params=["memory", "files"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Each call makes a new store on the same records, as after a restart."""
    memory = MemoryBatchStore()

    def started() -> BatchStore:
        store: BatchStore = memory if request.param == "memory" else FileBatchStore(tmp_path / "batches")
        store.open()
        return store

    return started


def batch(number: int, name: str = "night") -> Batch:
    return Batch(
        batch_id=f"batch_170000000{number}_00abc",
        name=name,
        created_at=AT,
        total=number,
        stagger_s=0.5,
        on_error=OnError.STOP,
    )


def test_what_was_added_is_there_now_and_after_a_restart(start: Start) -> None:
    store = start()
    store.add(batch(1))
    for each in (store, start()):
        assert each.get(batch(1).batch_id) == batch(1)
        with pytest.raises(BatchNotFound, match="batch_1_ff"):
            each.get("batch_1_ff")


def test_what_is_added_again_replaces_what_was_known(start: Start) -> None:
    store = start()
    cancelled = replace(batch(1), cancelled_at=AT)
    for each in (batch(1), cancelled):
        store.add(each)
    assert store.get(cancelled.batch_id) == start().get(cancelled.batch_id) == cancelled


def test_pages_are_newest_first(start: Start) -> None:
    store = start()
    assert (store.page(10, None), store.latest_id()) == ([], None)
    for number in (2, 1, 4, 3):
        store.add(batch(number))
    ids = [batch(number).batch_id for number in (4, 3, 2, 1)]
    for each in (store, start()):
        assert each.page(10, None) == ids
        assert each.page(2, None) == ids[:2]
        assert each.page(2, ids[1]) == ids[2:]
        assert each.latest_id() == ids[0]


def test_one_is_found_by_a_part_of_its_name_in_capitals_or_not(start: Start) -> None:
    store = start()
    for number, name in enumerate(["Die Straße", "night 1", "Night 2"]):
        store.add(batch(number, name))
    assert store.named("NIGHT") == {batch(1).batch_id, batch(2).batch_id}
    assert store.named("strasse") == {batch(0).batch_id}
    assert store.named("day") == frozenset()


def test_a_batch_is_found_by_its_idempotency_key(start: Start) -> None:
    store, keys = start(), ["a" * 16, "b" * 16]
    older, newer = (replace(batch(1), batch_id=new_batch_id(at, keys[0])) for at in (AT, AT + timedelta(1)))
    for each in (newer, older, batch(2)):
        store.add(each)
    for each in (store, start()):
        assert [each.by_idempotency_key(key) for key in keys] == [newer.batch_id, None]
        assert each.by_idempotency_key(batch(2).batch_id[-8:]) is None


def test_a_batch_that_was_made_again_is_as_good_as_any(start: Start) -> None:
    store = start()
    assert dict(store.unreadable) == {}
    store.replace_unreadable(batch(1))
    assert store.get(batch(1).batch_id) == start().get(batch(1).batch_id) == batch(1)
