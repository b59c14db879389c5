"""Several at a time, and the end of all when one fails."""

import threading
from itertools import count

import pytest

from comfyui_workflow.abreast import Crew
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


@pytest.mark.parametrize(("most", "items"), [(1, [1, 2]), (4, [1])])
def test_alone_no_thread_is_started(most: int, items: list[int]) -> None:
    with Crew(most, never).results(lambda item: threading.current_thread(), items) as results:
        assert set(results) == {threading.current_thread()}


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
