"""Contract of a store of the settings of ComfyUI-Distributed's clients, for every implementation."""

from collections.abc import Callable
from pathlib import Path

import pytest

from comfyui_workflow.errors import StoreError
from comfyui_workflow.stores.base import DistributedSettingsStore
from comfyui_workflow.stores.damage import DamageReport
from comfyui_workflow.stores.files.distributed_settings import FileDistributedSettingsStore
from comfyui_workflow.stores.memory import MemoryDistributedSettingsStore

Start = Callable[[], DistributedSettingsStore]


@pytest.fixture(params=["memory", "files"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Each call opens a new store on the same records, as after a restart."""
    memory = MemoryDistributedSettingsStore()

    def opened() -> DistributedSettingsStore:
        file = tmp_path / "distributed.json"
        store = memory if request.param == "memory" else FileDistributedSettingsStore(file)
        store.open()
        return store

    return opened


def test_at_first_there_are_none(start: Start) -> None:
    assert start().get() == {}


def test_updates_are_there_after_a_restart(start: Start) -> None:
    start().update(lambda known: {**known, "settings": {"debug": True}})
    start().update(lambda known: {**known, "master": {"name": "über"}})
    assert start().get() == {"settings": {"debug": True}, "master": {"name": "über"}}


def test_a_change_that_raises_changes_nothing(start: Start) -> None:
    store = start()
    store.update(lambda _: {"settings": {}})
    with pytest.raises(ZeroDivisionError):
        store.update(lambda _: {"settings": {"a": 1 / 0}})
    assert store.get() == start().get() == {"settings": {}}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version":1,"crc32":"00000000","a":1}', b"\xff"])
def test_a_damaged_file_is_kept_and_told(tmp_path: Path, content: bytes) -> None:
    file, damage = tmp_path / "distributed.json", DamageReport()
    file.write_bytes(content)
    store = FileDistributedSettingsStore(file, damage)
    store.open()
    assert store.get() == {}
    kept = list(tmp_path.glob("distributed.json.damaged*"))
    assert [each.read_bytes() for each in kept] == [content] or content == b"[]"


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    store = FileDistributedSettingsStore(tmp_path / "missing" / "distributed.json")
    store.open()
    with pytest.raises(StoreError, match="cannot be saved"):
        store.update(lambda _: {"settings": {}})
    assert store.get() == {}
