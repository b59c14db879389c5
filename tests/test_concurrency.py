"""Several at a time, and the end of all when one fails."""

import threading
from itertools import count

import pytest

from comfyui_workflow.concurrency import Crew
from comfyui_workflow.errors import ConnectionFailed, Stopped


def never() -> None:
    pass


def test_the_results_come_in_order_and_the_work_is_done_at_the_same_time() -> None:
    meeting = threading.Barrier(4)

    def work(item: int) -> int:
        meeting.wait(10)
        return item * 2

    with Crew(4, never).results(work, [4, 3, 2, 1]) as results:
        assert list(results) == [8, 6, 4, 2]


def test_one_at_a_time_is_one_at_a_time() -> None:
    with Crew(1, never).results(lambda item: threading.current_thread(), [1, 2, 3]) as results:
        assert len(set(results)) == 1


@pytest.mark.parametrize("items", [[1], [1, 2, 3]])
def test_who_waits_for_work_that_never_ends_is_heard_all_the_same(items: list[int]) -> None:
    is_working, ends = threading.Event(), threading.Event()

    def work(_item: int) -> None:
        is_working.set()
        ends.wait(60)

    def stop() -> None:
        if is_working.is_set():
            raise Stopped("cancelled")

    with pytest.raises(Stopped, match="cancelled"), Crew(2, stop).results(work, items) as results:
        list(results)
    assert not ends.is_set()
    ends.set()


def test_a_failure_ends_the_others_and_comes_out_when_they_have_ended() -> None:
    crew = Crew(2, never)
    is_working = threading.Event()
    ended: list[int] = []

    def work(item: int) -> None:
        if item == 0:
            assert is_working.wait(10)
            raise ConnectionFailed("cut")
        is_working.set()
        try:
            for _ in count():
                crew.stop_if_asked()
        except Stopped:
            ended.append(item)
            raise

    with pytest.raises(ConnectionFailed, match="cut"), crew.results(work, range(10)) as results:
        list(results)
    assert 1 in ended
    assert len(ended) <= 2, "at most one more was begun before the failure was seen"


def test_who_is_asked_to_stop_stops() -> None:
    def stop() -> None:
        raise Stopped("the server is stopping")

    crew = Crew(2, stop)
    with (
        pytest.raises(Stopped, match="the server is stopping"),
        crew.results(lambda _: crew.stop_if_asked(), [1, 2]) as results,
    ):
        list(results)
