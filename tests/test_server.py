"""Tests of start and stop: the components have one declared order."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from comfyui_workflow.app import Server, create_server
from comfyui_workflow.errors import ConfigurationError
from comfyui_workflow.lifecycle import Component, Lifecycle, Notifier
from comfyui_workflow.settings import Settings

LIMIT_S = 10.0
STEPS = ("open", "recover", "start", "stop")


class Recorder:
    """Components that record their calls."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def part(self, name: str, fails_at: str | None = None) -> Component:
        def step(kind: str) -> Callable[[], None]:
            def act() -> None:
                self.heard.append(f"{kind} {name}")
                if kind == fails_at:
                    raise ConfigurationError(f"{name} does not {kind}")

            return act

        return Component(name=name, **{kind: step(kind) for kind in STEPS})


def test_every_part_is_opened_before_any_is_recovered_and_all_are_stopped_backwards() -> None:
    recorder = Recorder()
    lifecycle = Lifecycle([recorder.part("a"), recorder.part("b")])
    lifecycle.start()
    lifecycle.stop()
    lifecycle.stop()
    steps = ["open a", "open b", "recover a", "recover b", "start a", "start b", "stop b", "stop a"]
    assert recorder.heard == steps


@pytest.mark.parametrize(
    ("fails_at", "stopped"),
    [
        ("open", ["stop a"]),
        ("recover", ["stop c", "stop b", "stop a"]),
        ("start", ["stop c", "stop b", "stop a"]),
    ],
)
def test_what_was_opened_is_stopped_when_a_part_fails(fails_at: str, stopped: list[str]) -> None:
    recorder = Recorder()
    parts = [recorder.part("a"), recorder.part("b", fails_at), recorder.part("c")]
    with pytest.raises(ConfigurationError, match=f"b does not {fails_at}"):
        Lifecycle(parts).start()
    assert recorder.heard[-len(stopped) - 1 :] == [f"{fails_at} b", *stopped]


def test_a_part_that_does_not_stop_keeps_no_other_from_it() -> None:
    def fail() -> None:
        raise OSError("stuck")

    recorder = Recorder()
    lifecycle = Lifecycle([recorder.part("a"), Component(name="b", stop=fail)])
    lifecycle.start()
    lifecycle.stop()
    assert recorder.heard[-1] == "stop a"


def test_a_notifier_may_be_made_before_whoever_hears_it() -> None:
    changes, heard = Notifier(), list[str]()
    changes.notify()
    changes.listen(lambda: heard.append("one"))
    changes.listen(lambda: heard.append("two"))
    changes.notify()
    assert heard == ["one", "two"]


def server_in(directory: Path) -> Server:
    return create_server(Settings(data_dir=directory / "data", state_file=directory / "state"))


def is_locked(directory: Path) -> bool:
    lock = FileLock(directory / "data" / "server.lock", timeout=0)
    with suppress(Timeout):
        lock.acquire()
        lock.release()
        return False
    return True


def until_no_thread_is_left(before: set[threading.Thread]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    for thread in set(threading.enumerate()) - before:
        thread.join(max(0.0, deadline_s - time.monotonic()))
        assert not thread.is_alive(), thread.name


def test_the_server_does_nothing_at_its_start_and_end_but_what_its_order_says(tmp_path: Path) -> None:
    recorder, server = Recorder(), server_in(tmp_path)
    names = [part.name for part in server.lifecycle.parts]
    assert len(set(names)) == len(names)
    recorded = replace(server, lifecycle=Lifecycle([recorder.part(name) for name in names]))
    assert recorded.start() == 0
    recorded.stop()
    up = [f"{step} {name}" for step in STEPS[:3] for name in names]
    assert recorder.heard == [*up, *(f"stop {name}" for name in reversed(names))]
    assert not (tmp_path / "data").exists()


def test_a_run_that_waits_for_an_instance_is_cut_off_and_awaited_before_the_store_closes(
    tmp_path: Path,
) -> None:
    names = [part.name for part in reversed(server_in(tmp_path).lifecycle.parts)]
    at = [names.index(name) for name in ("runs", "sessions", "threads of runs", "runs on disk")]
    assert at == sorted(at)


def test_two_starts_in_a_row(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    for _ in range(2):
        server = server_in(tmp_path)
        assert server.start() == 0
        assert is_locked(tmp_path)
        server.stop()
        assert not is_locked(tmp_path)
    until_no_thread_is_left(before)


@pytest.mark.parametrize("step", STEPS[:3])
@pytest.mark.parametrize("position", ["first", "middle", "last"])
def test_a_failed_start_leaves_no_thread_and_no_lock(tmp_path: Path, step: str, position: str) -> None:
    def fail() -> None:
        raise ConfigurationError("it cannot be")

    before = set(threading.enumerate())
    server = server_in(tmp_path)
    parts = list(server.lifecycle.parts)
    at = {"first": 0, "middle": len(parts) // 2, "last": len(parts)}[position]
    parts.insert(at, Component(name="broken", **{step: fail}))
    broken = replace(server, lifecycle=Lifecycle(parts))
    with pytest.raises(ConfigurationError, match="it cannot be"):
        broken.start()
    assert not is_locked(tmp_path)
    until_no_thread_is_left(before)
    broken.stop()
    after = server_in(tmp_path)
    assert after.start() == 0
    after.stop()
