"""Contract of a store of named instances, for every implementation."""

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from comfyui_workflow.instances.entries import complete
from comfyui_workflow.stores.base import Document, InstanceDocuments, InstanceStore
from comfyui_workflow.stores.files.instances import FileInstanceStore
from comfyui_workflow.stores.memory import MemoryInstanceStore

Start = Callable[[], InstanceStore]


@pytest.fixture(params=["memory", "files"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Each call makes a new store on the same records, as after a restart."""
    memory = MemoryInstanceStore()

    def started() -> InstanceStore:
        file = FileInstanceStore(tmp_path / "new" / "instances.json", complete)
        store: InstanceStore = memory if request.param == "memory" else file
        store.open()
        return store

    return started


def document(name: str, **fields: object) -> Document:
    return {"id": name, "name": name, "ssh_connection": f"root@{name}.example", **fields}


def with_one_more(name: str) -> Callable[[InstanceDocuments], InstanceDocuments]:
    return lambda known: replace(known, documents=(*known.documents, document(name)))


def test_at_first_there_are_none(start: Start) -> None:
    store = start()
    assert (store.read(), store.trouble) == (InstanceDocuments(), None)


def test_what_was_written_is_there_now_and_after_a_restart_as_it_was_written(start: Start) -> None:
    store = start()
    written = InstanceDocuments(
        documents=(document("b", tags=["24GB"]), document("a", colour="rot-grün", price_per_hour=0.5)),
        rest={"comment": "mine"},
    )
    assert store.update(lambda _: written) == written
    assert store.read() == start().read() == written


def test_it_is_the_same_object_as_long_as_nothing_changes(start: Start) -> None:
    store = start()
    known = store.update(with_one_more("a"))
    assert store.read() is store.read() is known
    assert store.update(lambda documents: documents) is known
    assert store.update(with_one_more("b")) is not known


def test_a_change_that_raises_changes_nothing_and_tells_nobody(start: Start) -> None:
    store = start()
    known = store.update(with_one_more("a"))
    told: list[InstanceDocuments] = []
    store.listen(lambda: told.append(store.read()))

    def refuse(_: InstanceDocuments) -> InstanceDocuments:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.update(refuse)
    assert (store.read(), start().read(), told) == (known, known, [])


def test_listeners_are_told_of_each_change(start: Start) -> None:
    store = start()
    told: list[InstanceDocuments] = []
    store.listen(lambda: told.append(store.read()))
    store.update(with_one_more("a"))
    store.update(lambda documents: documents)
    store.update(lambda _: InstanceDocuments())
    assert [len(each.documents) for each in told] == [1, 0]


def test_changes_from_many_threads_are_all_kept(start: Start) -> None:
    store = start()
    threads = [threading.Thread(target=store.update, args=(with_one_more(f"n{n}"),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each["id"] for each in start().read().documents} == {f"n{n}" for n in range(8)}


def test_a_change_returns_only_when_its_listeners_know_all_that_came_before(tmp_path: Path) -> None:
    """A reader that finds an edited file notifies in a thread of its own; a writer waits for that thread."""
    file, clock = tmp_path / "instances.json", itertools.count(step=2)
    store = FileInstanceStore(file, complete, clock=lambda: float(next(clock)))
    store.open()
    is_called, may_return = threading.Event(), threading.Event()
    told: list[int] = []

    def listener() -> None:
        is_called.set()
        may_return.wait(20)
        told.append(len(store.read().documents))

    store.listen(listener)
    file.write_text('{"instances": [{"id": "a", "name": "a", "ssh_connection": "root@a.example"}]}')
    store.read()
    assert is_called.wait(20)
    writer = threading.Thread(target=store.update, args=(lambda known: known,))
    writer.start()
    writer.join(0.2)
    assert writer.is_alive()
    may_return.set()
    writer.join(20)
    assert (writer.is_alive(), told) == (False, [1])
