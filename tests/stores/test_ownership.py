"""Ownership of the data after the lock file was removed or the list of processes was changed."""

import json
from pathlib import Path

import pytest

from comfyui_workflow.errors import DataTaken
from comfyui_workflow.stores.files.ownership import MOST_TOKENS, Ownership
from comfyui_workflow.stores.files.runs import FileRunStore
from tests.stores.test_workflow_file import graph, runs_of


def taken(directory: Path) -> Ownership:
    lock = directory / "server.lock"
    lock.touch()
    ownership = Ownership(directory, lock)
    ownership.take()
    return ownership


def test_all_earlier_processes_are_known(tmp_path: Path) -> None:
    first, second = taken(tmp_path), taken(tmp_path)
    assert second.knows(first.token)
    assert second.knows(second.token)
    assert not first.knows(second.token)
    assert second.are_all_known


def test_who_has_lost_the_lock_changes_nothing_more(tmp_path: Path) -> None:
    store = FileRunStore(tmp_path / "data", None)
    store.open()
    (run,) = runs_of(graph(1), range(1))
    store.add(run)
    (tmp_path / "data" / "server.lock").unlink()
    other = FileRunStore(tmp_path / "data", None)
    other.open()
    with pytest.raises(DataTaken, match="another server may have been started"):
        store.update(run.run_id, lambda run: run)
    with pytest.raises(DataTaken):
        store.add_all(runs_of(graph(1), range(1, 2)))
    store.close()
    assert other.unfinished() == [run]
    other.update(run.run_id, lambda run: run)
    other.close()


def test_a_process_that_came_later_is_noticed_where_locks_do_not_work(tmp_path: Path) -> None:
    first = taken(tmp_path)
    first.check()
    taken(tmp_path)
    with pytest.raises(DataTaken):
        first.check()


def test_loss_is_told_once(tmp_path: Path) -> None:
    first, told = taken(tmp_path), list[str]()
    first.listen(told.append)
    (tmp_path / "server.lock").unlink()
    for _ in range(2):
        with pytest.raises(DataTaken):
            first.check()
    assert told == [first.lost]


def test_a_list_that_somebody_removed_is_no_loss(tmp_path: Path) -> None:
    first = taken(tmp_path)
    (tmp_path / "server_processes.json").unlink()
    first.check()


@pytest.mark.parametrize(
    "content",
    [None, b"", b"half a", b"[]", b"{}", json.dumps({"processes": ["x"] * MOST_TOKENS}).encode()],
)
def test_a_list_that_is_not_whole_is_known_to_be_none(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "server_id").touch()  # a server was here
    if content is not None:
        (tmp_path / "server_processes.json").write_bytes(content)
    again = taken(tmp_path)
    assert not again.are_all_known
    assert again.knows(again.token)
    assert len(json.loads((tmp_path / "server_processes.json").read_bytes())["processes"]) <= MOST_TOKENS
