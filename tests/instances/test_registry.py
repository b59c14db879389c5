"""Registry file: written by the server, edited by a user, read by many threads."""

import json
import logging
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.errors import (
    ConfigurationError,
    InstanceNotFound,
    InstancesFileBroken,
    InvalidRequest,
    StoreError,
)
from comfyui_workflow.instances.registry import InstanceRegistry
from comfyui_workflow.stores.files.instances import REFRESH_INTERVAL_S
from tests.instances.files import directory_in

SSH = "ssh -p 40738 root@198.53.64.194"
WAIT_S = 10.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def pass_by(self) -> None:
        self.now_s += REFRESH_INTERVAL_S


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new" / "instances.json"


@pytest.fixture
def directory(file: Path, clock: Clock) -> InstanceRegistry:
    made = directory_in(file, clock)
    made.load()
    return made


def entry(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "ssh_connection": SSH, **fields}


def edit(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def names(directory: InstanceRegistry) -> list[str]:
    return [instance.name for instance in directory.all()]


def saved(file: Path) -> Any:
    return json.loads(file.read_text())


def listener(directory: InstanceRegistry) -> "threading.Semaphore":
    told = threading.Semaphore(0)
    directory.listen(told.release)
    return told


def test_without_a_file_there_are_none(directory: InstanceRegistry, file: Path) -> None:
    assert (directory.all(), directory.trouble, directory.get("x")) == ((), None, None)
    assert not file.exists()


def test_what_is_added_is_there_at_the_next_start(directory: InstanceRegistry, file: Path) -> None:
    added = directory.add(entry("Die Große", tags=["big"], comfyui_port=None))
    assert added.id == "die-groe"
    again = directory_in(file)
    again.load()
    assert again.all() == (added,)
    assert saved(file) == {"instances": [{"id": "die-groe", **entry("Die Große", tags=["big"])}]}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("word", ["primary-gpu", "Primary GPU", "PRIMARY gpu", " primary gpu "])
def test_one_is_found_by_its_id_or_its_name(directory: InstanceRegistry, word: str) -> None:
    added = directory.add(entry("Primary GPU"))
    assert directory.get(word) == directory.require(word) == added


@pytest.mark.parametrize("word", ["", "nobody", "\ud83d", "x" * 1000])
def test_who_is_not_there_is_not_found(directory: InstanceRegistry, word: str) -> None:
    assert directory.get(word) is None
    for ask in (directory.require, directory.remove, lambda name: directory.change(name, {})):
        with pytest.raises(InstanceNotFound):
            ask(word)


def test_a_change_keeps_the_id_and_what_is_not_named(directory: InstanceRegistry) -> None:
    directory.add(entry("Primary", comfyui_port=9000, price_per_hour=0.4))
    changed = directory.change("primary", {"name": "Second", "comfyui_port": None})
    assert (changed.id, changed.name, changed.comfyui_port) == ("primary", "Second", 18188)
    assert changed.price_per_hour == 0.4
    assert directory.add(entry("Primary 2")).id == "primary-2"
    assert names(directory) == ["Second", "Primary 2"]
    with pytest.raises(InvalidRequest, match=r"^id"):
        directory.change("primary", {"id": "other"})


def test_a_port_that_was_never_named_follows_the_ssh_string(directory: InstanceRegistry) -> None:
    directory.add(entry("Primary"))
    changed = directory.change("primary", {"ssh_connection": f"{SSH} -L 8080:localhost:8188"})
    assert changed.comfyui_port == 8188


def test_a_name_that_is_the_id_of_another_is_refused(directory: InstanceRegistry) -> None:
    directory.add(entry("Primary"))
    directory.change("primary", {"name": "Second"})
    with pytest.raises(InvalidRequest, match=r"^name"):
        directory.add(entry("PRIMARY"))
    assert names(directory) == ["Second"]


def test_what_is_removed_is_gone(directory: InstanceRegistry, file: Path) -> None:
    directory.add(entry("a"))
    directory.add(entry("b"))
    assert directory.remove("A").id == "a"
    assert names(directory) == ["b"]
    assert [each["name"] for each in saved(file)["instances"]] == ["b"]


def test_an_edit_is_taken_up_after_a_second(directory: InstanceRegistry, clock: Clock, file: Path) -> None:
    directory.add(entry("a"))
    told = listener(directory)
    edit(file, {"instances": [entry("b"), entry("c")]})
    assert names(directory) == ["a"]
    clock.pass_by()
    assert names(directory) == ["b", "c"]
    assert told.acquire(timeout=WAIT_S)


def test_an_edit_that_nobody_has_read_yet_is_not_overwritten(directory: InstanceRegistry, file: Path) -> None:
    directory.add(entry("a"))
    edit(file, {"instances": [entry("b")]})
    directory.add(entry("c"))
    assert names(directory) == ["b", "c"]


def test_what_the_server_does_not_know_stays_in_the_file(
    directory: InstanceRegistry, clock: Clock, file: Path
) -> None:
    edit(file, {"comment": "mine", "instances": [entry("a", colour="red", note=None), entry("b")]})
    clock.pass_by()
    directory.change("a", {"enabled": False})
    directory.remove("b")
    expected = {"id": "a", **entry("a", colour="red", note=None, enabled=False)}
    assert saved(file) == {"comment": "mine", "instances": [expected]}


def test_entries_without_an_id_get_one_that_nobody_else_is_called(
    directory: InstanceRegistry, clock: Clock, file: Path
) -> None:
    edit(file, {"instances": [entry("GPU 1"), entry("gpu-1"), entry("x", id="gpu-1-2"), entry("gpu.1")]})
    clock.pass_by()
    ids = [instance.id for instance in directory.all()]
    assert ids == ["gpu-1-3", "gpu-1", "gpu-1-2", "gpu-1-4"]


BROKEN = [
    "",
    "[]",
    "{",
    '{"instances": {}}',
    '{"instances": [7]}',
    '{"instances": [{"name": "a"}]}',
    "\ufeff{]",
    '{"instances": [], "x": ' + "[" * 60 + "]" * 60 + "}",
    "[" * 100_000,
]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_edit_leaves_the_last_good_one_in_force_and_is_not_overwritten(
    directory: InstanceRegistry, clock: Clock, content: str, caplog: pytest.LogCaptureFixture, file: Path
) -> None:
    directory.add(entry("a"))
    told = listener(directory)
    edit(file, content)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clock.pass_by()
            assert names(directory) == ["a"]
            assert str(file) in (directory.trouble or "")
    assert len(caplog.records) == 1
    for write in (
        lambda: directory.add(entry("b")),
        lambda: directory.change("a", {}),
        lambda: directory.remove("a"),
    ):
        with pytest.raises(InstancesFileBroken, match="Nothing was changed"):
            write()
    assert file.read_text() == content
    assert not told.acquire(blocking=False)
    edit(file, {"instances": [entry("b")]})
    clock.pass_by()
    assert (names(directory), directory.trouble) == (["b"], None)


def test_trouble_names_the_entry_and_the_field(directory: InstanceRegistry, clock: Clock, file: Path) -> None:
    edit(file, {"instances": [entry("a"), entry("b", local_port=80)]})
    clock.pass_by()
    assert "instance 2 (b): local_port" in (directory.trouble or "")


@pytest.mark.parametrize("content", BROKEN)
def test_a_server_does_not_start_with_a_broken_file(tmp_path: Path, content: str) -> None:
    file = tmp_path / "instances.json"
    directory = directory_in(file)
    edit(file, content)
    with pytest.raises(ConfigurationError, match=r"instances\.json"):
        directory.load()


def test_a_file_that_may_not_be_read_is_trouble_until_it_may(tmp_path: Path, clock: Clock) -> None:
    """Puts a directory in its place: root can read any file."""
    file = tmp_path / "instances.json"
    directory = directory_in(file, clock)
    file.mkdir()
    with pytest.raises(ConfigurationError, match="directory"):
        directory.load()
    file.rmdir()
    clock.pass_by()
    clock.pass_by()
    assert directory.trouble is None


def test_a_file_that_an_editor_is_replacing_is_missed_once(
    directory: InstanceRegistry, clock: Clock, file: Path
) -> None:
    directory.add(entry("a"))
    content = file.read_text()
    file.unlink()
    clock.pass_by()
    assert names(directory) == ["a"]
    file.write_text(content)
    clock.pass_by()
    assert names(directory) == ["a"]
    file.unlink()
    for expected in (["a"], []):
        clock.pass_by()
        assert names(directory) == expected


def test_a_disk_that_takes_nothing_changes_nothing(
    directory: InstanceRegistry, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    directory.add(entry("a"))
    before = file.read_bytes()

    def refuse(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", refuse)
    with pytest.raises(StoreError, match="No space left"):
        directory.add(entry("b"))
    assert names(directory) == ["a"]
    assert file.read_bytes() == before


def test_listeners_are_told_of_each_change_and_of_no_refusal(directory: InstanceRegistry) -> None:
    told = []
    directory.listen(lambda: told.append(names(directory)))
    directory.add(entry("a"))
    directory.change("a", {"name": "b"})
    directory.change("b", {"name": "b"})
    with pytest.raises(InvalidRequest):
        directory.add(entry("b"))
    directory.remove("b")
    assert told == [["a"], ["b"], []]


def test_a_listener_may_hold_a_lock_that_a_reader_holds(
    directory: InstanceRegistry, clock: Clock, file: Path
) -> None:
    lock = threading.Lock()
    told = threading.Event()

    def listen() -> None:
        with lock:
            directory.all()
        told.set()

    directory.listen(listen)
    edit(file, {"instances": [entry("a")]})
    clock.pass_by()
    with lock:
        assert names(directory) == ["a"]
    assert told.wait(WAIT_S)


def test_many_at_once_lose_nothing(directory: InstanceRegistry, file: Path) -> None:
    def work(number: int) -> None:
        directory.add(entry(f"gpu {number}"))
        directory.change(f"gpu-{number}", {"tags": [str(number)]})
        if number % 2:
            directory.remove(f"gpu {number}")

    threads = [threading.Thread(target=_carried_out(work, number)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(names(directory)) == ["gpu 0", "gpu 2", "gpu 4", "gpu 6"]
    assert {tuple(each["tags"]) for each in saved(file)["instances"]} == {("0",), ("2",), ("4",), ("6",)}


def _carried_out(work: Callable[[int], None], number: int) -> Callable[[], None]:
    return lambda: work(number)
