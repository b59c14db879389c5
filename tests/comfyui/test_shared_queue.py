"""Tests of the shared copy of the queue, with several threads."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from comfyui_workflow.comfyui import shared_queue
from comfyui_workflow.comfyui.queue import QueueSnapshot
from comfyui_workflow.comfyui.shared_queue import SharedQueue
from comfyui_workflow.errors import ComfyUIUnavailable

EMPTY = QueueSnapshot(running=(), pending=(), correlations={})
LIMIT_S = 10.0


class Instance:
    """Answers only when the test allows it."""

    def __init__(self, error: Exception | None = None, failures: int = 9) -> None:
        self.asked = 0
        self.failures = failures
        self.is_asked = threading.Event()
        self.may_answer = threading.Event()
        self.error = error

    def queue(self) -> QueueSnapshot:
        self.asked += 1
        self.is_asked.set()
        assert self.may_answer.wait(LIMIT_S)
        if self.error is not None and self.asked <= self.failures:
            raise self.error
        return EMPTY


def future_that_tells(waiting: threading.Semaphore) -> type[Future[QueueSnapshot]]:
    """`waiting` is released whenever a thread begins to wait for a result."""

    class Told(Future[QueueSnapshot]):
        def result(self, timeout: float | None = None) -> QueueSnapshot:
            waiting.release()
            return super().result(timeout)

    return Told


@pytest.mark.parametrize("error", [None, ComfyUIUnavailable("timed out")])
def test_all_who_wait_get_what_one_of_them_is_told(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    instance, others = Instance(error), 3
    waiting = threading.Semaphore(0)

    monkeypatch.setattr(shared_queue, "Future", future_that_tells(waiting))
    monkeypatch.setattr(shared_queue, "FAST_FAILURE_S", 0.0)
    view = SharedQueue(instance.queue)
    with ThreadPoolExecutor(others + 1) as threads:
        first = threads.submit(view)
        assert instance.is_asked.wait(LIMIT_S)
        looks = [threads.submit(view) for _ in range(others)]
        assert all(waiting.acquire(timeout=LIMIT_S) for _ in looks)
        assert not any(each.done() for each in (first, *looks))
        instance.may_answer.set()
        outcomes = [each.exception(LIMIT_S) for each in (first, *looks)]
    assert outcomes == [error] * 4
    assert instance.asked == 1


def test_an_error_that_came_soon_is_only_for_the_one_who_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = Instance(ComfyUIUnavailable("half an answer"), failures=1)
    waiting = threading.Semaphore(0)
    monkeypatch.setattr(shared_queue, "Future", future_that_tells(waiting))
    monkeypatch.setattr(shared_queue, "FAST_FAILURE_S", LIMIT_S)
    view = SharedQueue(instance.queue)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(view)
        assert instance.is_asked.wait(LIMIT_S)
        second = threads.submit(view)
        assert waiting.acquire(timeout=LIMIT_S)
        instance.may_answer.set()
        assert isinstance(first.exception(LIMIT_S), ComfyUIUnavailable)
        assert second.result(LIMIT_S) is EMPTY
    assert instance.asked == 2


def test_after_trouble_it_is_asked_anew() -> None:
    instance = Instance(ComfyUIUnavailable("timed out"))
    instance.may_answer.set()
    view = SharedQueue(instance.queue)
    with pytest.raises(ComfyUIUnavailable):
        view()
    instance.error = None
    assert view() is EMPTY
    assert view() is EMPTY
    assert instance.asked == 2
