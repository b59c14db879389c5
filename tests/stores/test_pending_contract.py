"""Contract of a store of pending notifications, for every implementation."""

from collections.abc import Callable
from pathlib import Path

import pytest

from comfyui_workflow.errors import StoreError
from comfyui_workflow.stores.base import PendingStore
from comfyui_workflow.stores.files.pending import FilePendingStore
from comfyui_workflow.stores.memory import MemoryPendingStore

Start = Callable[[], PendingStore]
RUN, BATCH = "comfyui_workflow_1700000000_00000abcdef", "batch_1700000000_00000abcdef"


@pytest.fixture(params=["memory", "files"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Each call makes a new store on the same records, as after a restart."""
    memory = MemoryPendingStore()
    return lambda: memory if request.param == "memory" else FilePendingStore(tmp_path / "notifications")


def test_what_was_added_is_there_until_it_is_removed(start: Start) -> None:
    store = start()
    assert store.all() == []
    store.remove(RUN)
    for subject_id in (RUN, BATCH, RUN):
        store.add(subject_id)
    assert start().all() == [BATCH, RUN]
    store.remove(RUN)
    store.remove(RUN)
    assert start().all() == [BATCH]


def test_other_files_are_not_taken_for_notifications(tmp_path: Path) -> None:
    for name in ("README", f".{RUN}.0123", "batch_x"):
        (tmp_path / name).touch()
    assert FilePendingStore(tmp_path).all() == []


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "notifications").write_text("")
    store = FilePendingStore(tmp_path / "notifications")
    with pytest.raises(StoreError, match="cannot be saved"):
        store.add(RUN)
    with pytest.raises(StoreError, match="cannot be read"):
        store.all()
    store.remove(RUN)
