"""Inputs that are downloaded before their run is handed to the executor."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from comfyui_workflow.execution import input_prefetch
from comfyui_workflow.execution.input_prefetch import InputPrefetcher
from comfyui_workflow.execution.live_progress import LiveProgress
from comfyui_workflow.runs.upload_target import InputDownload
from comfyui_workflow.storage.download_queue import DownloadQueue, server_of


class Executor:
    """Refuses the first run with a bug."""

    def __init__(self) -> None:
        self.asked = list[str]()
        self.has_both = threading.Event()

    def start(self, run_id: str) -> None:
        self.asked.append(run_id)
        if len(self.asked) == 1:
            raise RuntimeError("a bug")
        self.has_both.set()

    def stop(self, _timeout_s: float) -> bool:
        return True


class Run:
    is_finished = is_cancel_requested = False

    def __init__(self, *urls: str) -> None:
        downloads = [InputDownload(url=url, path="/nowhere") for url in urls]
        self.request = SimpleNamespace(downloads=downloads)


class Journal:
    def __init__(self, **runs: Run) -> None:
        self.runs = runs

    def get(self, run_id: str) -> Run:
        return self.runs[run_id]

    def record(self, *_: object) -> None:
        pass


class Steps:
    def needs_inputs(self, _run: object) -> bool:
        return True

    def download_inputs(self, *_: object) -> None:
        pass


def test_a_run_that_cannot_be_started_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_prefetch, "AT_ONCE", 1)
    executor: Any = Executor()
    journal: Any = Journal(a=Run("https://h/a"), b=Run("https://h/b"))
    steps: Any = Steps()
    prefetcher = InputPrefetcher(executor, journal, steps, LiveProgress())
    prefetcher.start("a")
    prefetcher.start("b")
    assert executor.has_both.wait(10)
    assert executor.asked == ["a", "b"]
    prefetcher.stop(1)


class SlowSteps(Steps):
    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def download_inputs(self, *_: object) -> None:
        self.begun.set()
        self.go_on.wait(10)


class Started:
    def __init__(self) -> None:
        self.started = list[str]()

    def start(self, run_id: str) -> None:
        self.started.append(run_id)

    def recheck(self, _run_id: str) -> None:
        pass

    def stop(self, _timeout_s: float) -> bool:
        return True


def test_a_cancelled_run_does_not_wait_for_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_prefetch, "AT_ONE_SERVER", 1)
    executor: Any = Started()
    journal: Any = Journal(a=Run("https://slow/a"), b=Run("https://slow/b"))
    steps: Any = SlowSteps()
    prefetcher = InputPrefetcher(executor, journal, steps, LiveProgress())
    prefetcher.start("a")
    assert steps.begun.wait(10)
    prefetcher.start("b")
    journal.runs["b"].is_cancel_requested = True
    prefetcher.recheck("b")
    assert executor.started == ["b"]
    steps.go_on.set()
    prefetcher.stop(1)


def test_each_server_has_its_limit() -> None:
    queue = DownloadQueue[str](1)
    queue.put("one", ["https://slow/1"])
    queue.put("two", ["https://slow/2", "https://fast/2"])
    queue.put("three", ["https://fast/3"])
    queue.put("four", ["s3://bucket/4"])
    one, three, four = queue.take(), queue.take(), queue.take()
    assert [each and each.item for each in (one, three, four, queue.take())] == ["one", "three", "four", None]
    assert one is not None
    assert three is not None
    queue.release(one)
    assert queue.take() is None
    queue.release(three)
    two = queue.take()
    assert two is not None
    assert two.item == "two"
    assert not queue.remove("two")


def test_ports_and_kinds_of_storage_are_different_servers() -> None:
    urls = ["https://h/a", "https://h:8443/a", "http://h/a", "s3://h/a", "hf://me/repo/a", "https://[", "x"]
    assert len({server_of(url) for url in urls}) == len(urls)
    assert server_of("hf://me/repo/a") == server_of("HF://you/repo/b")
    assert server_of("https://user:secret@H/a") == server_of("https://h/b")
