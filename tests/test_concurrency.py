"""Requests to stop that wake their waiters; several at a time, and the end of all when one fails."""

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from comfyui_workflow.concurrency import CancelToken, ParallelMap
from comfyui_workflow.errors import ConnectionFailed, Stopped

LIMIT_S = 10.0


def test_a_token_raises_the_first_reason_that_it_was_cancelled_for() -> None:
    token = CancelToken()
    token.check()
    token.cancel("the run is cancelled")
    token.cancel("the server is stopping")
    with pytest.raises(Stopped, match="the run is cancelled"):
        token.check()


def test_a_token_is_cancelled_with_the_first_of_its_parents_and_raises_the_same_error() -> None:
    class Late(Stopped):
        pass

    first, second = CancelToken(), CancelToken()
    child = CancelToken(CancelToken(first, second))
    second.cancel(Late("too late"))
    assert (child.is_set, first.is_set) == (True, False)
    for token in (child, CancelToken(child)):
        with pytest.raises(Late, match="too late"):
            token.check()


def waiting_on_token(token: CancelToken, is_waiting: threading.Event) -> bool:
    is_waiting.set()
    return token.wait(LIMIT_S)


def waiting_on_condition(token: CancelToken, is_waiting: threading.Event) -> bool:
    condition = threading.Condition()
    with token.notifying(condition), condition:
        is_waiting.set()
        return condition.wait_for(lambda: token.is_set, LIMIT_S)


@pytest.mark.parametrize("wait", [waiting_on_token, waiting_on_condition])
def test_who_waits_is_woken_at_once(wait: Callable[[CancelToken, threading.Event], bool]) -> None:
    token, is_waiting = CancelToken(), threading.Event()
    with ThreadPoolExecutor(1) as threads:
        woken = threads.submit(wait, CancelToken(token), is_waiting)
        assert is_waiting.wait(LIMIT_S)
        token.cancel()
        assert woken.result(LIMIT_S / 2)


def test_a_waker_is_called_once_also_when_it_comes_late_and_never_after_the_block() -> None:
    token, called = CancelToken(), list[str]()
    with token.on_cancel(lambda: called.append("left")):
        pass
    with token.on_cancel(lambda: called.append("waits")):
        token.cancel()
        token.cancel()
    with token.on_cancel(lambda: called.append("late")):
        assert called == ["waits", "late"]


def test_a_token_that_lives_long_keeps_none_of_its_children() -> None:
    """The server's own has one for each attempt of each run."""
    stop = CancelToken()
    child = weakref.ref(CancelToken(stop))
    gc.collect()
    assert child() is None


def test_the_results_come_in_order_and_the_work_is_done_at_the_same_time() -> None:
    meeting = threading.Barrier(4)

    def work(item: int) -> int:
        meeting.wait(10)
        return item * 2

    with ParallelMap(4, CancelToken()).results(work, [4, 3, 2, 1]) as results:
        assert list(results) == [8, 6, 4, 2]


def test_one_at_a_time_is_one_at_a_time() -> None:
    with ParallelMap(1, CancelToken()).results(lambda item: threading.current_thread(), [1, 2, 3]) as results:
        assert len(set(results)) == 1


@pytest.mark.parametrize("items", [[1], [1, 2, 3]])
def test_who_waits_for_work_that_never_ends_is_heard_all_the_same(items: list[int]) -> None:
    stop, ends = CancelToken(), threading.Event()

    def work(_item: int) -> None:
        stop.cancel("cancelled")
        ends.wait(60)

    with pytest.raises(Stopped, match="cancelled"), ParallelMap(2, stop).results(work, items) as results:
        list(results)
    assert not ends.is_set()
    ends.set()


def test_a_failure_ends_the_others_and_comes_out_when_they_have_ended() -> None:
    crew = ParallelMap(2, CancelToken())
    is_working = threading.Event()
    ended: list[int] = []

    def work(item: int) -> None:
        if item == 0:
            assert is_working.wait(10)
            raise ConnectionFailed("cut")
        is_working.set()
        try:
            for _ in count():
                crew.stop.check()
        except Stopped:
            ended.append(item)
            raise

    with pytest.raises(ConnectionFailed, match="cut"), crew.results(work, range(10)) as results:
        list(results)
    assert 1 in ended
    assert len(ended) <= 2, "at most one more was begun before the failure was seen"


def test_who_is_asked_to_stop_stops() -> None:
    stop = CancelToken()
    stop.cancel("the server is stopping")
    crew = ParallelMap(2, stop)
    with (
        pytest.raises(Stopped, match="the server is stopping"),
        crew.results(lambda _: crew.stop.check(), [1, 2]) as results,
    ):
        list(results)
