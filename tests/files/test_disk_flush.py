"""Concurrent flushes are combined, and every waiting thread gets the error of its flush."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from comfyui_workflow.files import disk_flush as flush
from comfyui_workflow.files.atomic_write import make_private_directory, write_atomically
from comfyui_workflow.files.disk_flush import GroupFlush, bring_to_disk
from tests.sandbox.running_comfyui import wait_until

WAIT_S = 20


class SlowDisk:
    """Each flush waits until the test releases it."""

    def __init__(self) -> None:
        self.flushed = list[list[Path]]()
        self.is_busy = threading.Semaphore(0)
        self._goes_on = threading.Semaphore(0)
        self._trouble: OSError | None = None

    def bring_to_disk(self, paths: Sequence[Path]) -> None:
        self.is_busy.release()
        assert self._goes_on.acquire(timeout=WAIT_S)
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            raise trouble
        self.flushed.append(list(paths))

    def go_on(self, trouble: OSError | None = None) -> None:
        self._trouble = trouble
        self._goes_on.release()


def wait_until_joined(group: GroupFlush, count: int) -> None:
    wait_until(lambda: len(group._next.paths) == count)


def test_who_comes_while_the_disk_is_busy_is_served_by_one_flush() -> None:
    disk = SlowDisk()
    group = GroupFlush(disk.bring_to_disk)
    with ThreadPoolExecutor(61) as threads:
        first = threads.submit(group.flush, [Path("first")])
        assert disk.is_busy.acquire(timeout=WAIT_S)
        others = [threads.submit(group.flush, [Path(str(number))]) for number in range(60)]
        wait_until_joined(group, 60)
        disk.go_on()
        first.result(WAIT_S)
        assert not any(other.done() for other in others)
        disk.go_on()
        for other in others:
            other.result(WAIT_S)
    assert disk.flushed[0] == [Path("first")]
    assert sorted(map(str, disk.flushed[1])) == sorted(map(str, range(60)))


def test_a_failed_flush_is_told_to_all_who_waited_for_it_and_to_no_other() -> None:
    disk = SlowDisk()
    group = GroupFlush(disk.bring_to_disk)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(group.flush, [Path("first")])
        assert disk.is_busy.acquire(timeout=WAIT_S)
        others = [threads.submit(group.flush, [Path(str(number))]) for number in range(2)]
        wait_until_joined(group, 2)
        disk.go_on()
        first.result(WAIT_S)
        assert disk.is_busy.acquire(timeout=WAIT_S)
        disk.go_on(OSError(5, "Input/output error"))
        for other in others:
            with pytest.raises(OSError, match="Input/output error"):
                other.result(WAIT_S)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files and directories that were flushed one by one."""
    found = list[Path]()
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(f"os.{name}", lambda fd: found.append(Path(f"/proc/self/fd/{fd}").readlink()))
    return found


def test_much_that_others_have_written_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: list[Path]
) -> None:
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_bytes(b"x")
    monkeypatch.setattr(flush, "_dirty_bytes", lambda: 0)
    bring_to_disk([*paths, tmp_path])
    monkeypatch.setattr(flush, "_dirty_bytes", lambda: 10 * flush.MOST_FOREIGN_BYTES)
    assert synced == ([] if flush._SYNC_FILE_SYSTEM else [*paths, tmp_path])
    bring_to_disk([*paths, tmp_path, *paths])
    assert synced[-3:] == [*paths, tmp_path]


def test_a_file_is_on_the_disk_before_it_takes_the_place_of_another_and_then_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = list[tuple[str, bytes]]()
    target = tmp_path / "file"
    write_atomically(target, b"old")

    def note(paths: Sequence[Path]) -> None:
        (path,) = paths
        steps.append((path.name.split(".")[-2] if path.is_file() else "directory", target.read_bytes()))

    monkeypatch.setattr("comfyui_workflow.files.atomic_write.flush_to_disk", note)
    write_atomically(target, b"new")
    assert steps == [("file", b"old"), ("directory", b"new")]
    write_atomically(target, b"newer", must_reach_disk=False)
    assert (len(steps), target.read_bytes()) == (2, b"newer")


def test_the_names_of_new_directories_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = set[Path]()
    monkeypatch.setattr("comfyui_workflow.files.atomic_write.flush_to_disk", flushed.update)
    make_private_directory(tmp_path / "a" / "b" / "c")
    assert flushed == {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}
    flushed.clear()
    make_private_directory(tmp_path / "a" / "b" / "c")
    assert flushed == set()
