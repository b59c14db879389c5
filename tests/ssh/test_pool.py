"""The pool: one value per key, shared by leases, closed when idle. Plain objects and threads, no SSH."""

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ConnectionFailed, Stopped
from comfyui_workflow.ssh.pool import Pool

LIMIT_S = 10.0


class Thing:
    def __init__(self, key: str) -> None:
        self.key = key
        self.is_alive = True
        self.close_count = 0

    def close(self) -> None:
        self.is_alive = False
        self.close_count += 1


class Workshop:
    """Opens values while its gate is open, and counts the concurrent openings of each key."""

    def __init__(self) -> None:
        self.made: list[Thing] = []
        self.gate = threading.Event()
        self.gate.set()
        self.slow_keys: set[str] = set()
        self.errors: list[Exception] = []
        self._lock = threading.Lock()
        self._in_the_making: dict[str, int] = {}
        self.most_at_once = 0

    def open(self, key: str) -> Thing:
        with self._lock:
            self._in_the_making[key] = self._in_the_making.get(key, 0) + 1
            self.most_at_once = max(self.most_at_once, *self._in_the_making.values())
        try:
            return self._make(key)
        finally:
            with self._lock:
                self._in_the_making[key] -= 1

    def _make(self, key: str) -> Thing:
        if not self.slow_keys or key in self.slow_keys:
            assert self.gate.wait(LIMIT_S)
        with self._lock:
            if self.errors:
                raise self.errors.pop(0)
            self.made.append(Thing(key))
            return self.made[-1]


@pytest.fixture
def workshop() -> Workshop:
    return Workshop()


@pytest.fixture
def pool(workshop: Workshop) -> Iterator[Pool[str, Thing]]:
    pool = Pool(workshop.open)
    yield pool
    workshop.gate.set()
    pool.close()


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not is_true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def test_leases_of_a_key_share_its_value(pool: Pool[str, Thing], workshop: Workshop) -> None:
    with pool.lease("a") as first, pool.lease("a") as second, pool.lease("b") as other:
        assert first is second
        assert other is not first
    with pool.lease("a") as third:
        assert third is first
    assert [thing.close_count for thing in workshop.made] == [0, 0]


def test_a_dead_value_is_replaced_on_the_next_lease(pool: Pool[str, Thing]) -> None:
    with pool.lease("a") as first:
        first.is_alive = False
        with pool.lease("a") as second:
            assert second is not first
            assert first.close_count == 1
    with pool.lease("a") as third:
        assert third is second


def test_many_at_once_open_one_at_a_time(pool: Pool[str, Thing], workshop: Workshop) -> None:
    workshop.gate.clear()
    start = threading.Barrier(20)

    def borrow() -> Thing:
        start.wait(LIMIT_S)
        with pool.lease("a") as thing:
            return thing

    with ThreadPoolExecutor(20) as threads:
        borrowers = [threads.submit(borrow) for _ in range(20)]
        wait_until(lambda: workshop.most_at_once > 0)
        workshop.gate.set()
        things = {borrower.result(LIMIT_S) for borrower in borrowers}
    assert len(things) == 1
    assert (len(workshop.made), workshop.most_at_once) == (1, 1)


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Makes threads switch so often that a missing lock is noticed."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual_s)


@pytest.mark.usefixtures("hasty_threads")
def test_under_fire_nobody_gets_a_closed_value(workshop: Workshop) -> None:
    """Values are closed as soon as they are idle; a value with a lease stays open."""
    pool = Pool(workshop.open, idle_s=0.001)
    end = time.monotonic() + 1.0

    def borrow(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < end:
            with pool.lease("ab"[number % 2]) as thing:
                time.sleep(chance.uniform(0, 0.004))
                assert thing.close_count == 0, "closed while lent"
            time.sleep(chance.uniform(0, 0.004))

    with ThreadPoolExecutor(6) as threads:
        for borrower in [threads.submit(borrow, number) for number in range(6)]:
            borrower.result(LIMIT_S)
    pool.close()
    assert workshop.most_at_once == 1
    assert len(workshop.made) > 2, "nothing idled out: this test tests nothing"
    assert all(thing.close_count == 1 for thing in workshop.made)


@pytest.mark.usefixtures("hasty_threads")
def test_under_fire_a_key_has_one_value(pool: Pool[str, Thing], workshop: Workshop) -> None:
    def borrow_all(start: threading.Barrier) -> None:
        for number in range(100):
            start.wait(LIMIT_S)
            with pool.lease(str(number)):
                pass

    start = threading.Barrier(4)
    with ThreadPoolExecutor(4) as threads:
        for borrower in [threads.submit(borrow_all, start) for _ in range(4)]:
            borrower.result(LIMIT_S)
    assert len(workshop.made) == 100


def test_what_was_opened_for_nobody_is_closed_when_idle(workshop: Workshop) -> None:
    pool = Pool(workshop.open, idle_s=0.01)
    workshop.gate.clear()
    with pytest.raises(TimeoutError), pool.lease("a", timeout_s=0.01):
        pass
    wait_until(lambda: workshop.most_at_once > 0)
    workshop.gate.set()
    wait_until(lambda: [thing.close_count for thing in workshop.made] == [1])
    pool.close()


def test_a_slow_key_makes_no_other_key_wait(pool: Pool[str, Thing], workshop: Workshop) -> None:
    workshop.slow_keys = {"slow"}
    workshop.gate.clear()
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(lambda: pool.lease("slow").__enter__())
        wait_until(lambda: workshop.most_at_once > 0)
        with pool.lease("quick") as thing:
            assert thing.key == "quick"
        assert not slow.done()
        workshop.gate.set()
        assert slow.result(LIMIT_S).key == "slow"


def test_who_stops_waiting_stops_at_once(pool: Pool[str, Thing], workshop: Workshop) -> None:
    workshop.gate.clear()
    stop = CancelToken()

    def wait_for_it() -> None:
        with pool.lease("a", stop=stop):
            raise AssertionError("it is not open yet")

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(wait_for_it)
        wait_until(lambda: workshop.most_at_once > 0)
        stop.cancel("the run is cancelled")
        with pytest.raises(Stopped, match="the run is cancelled"):
            waiting.result(LIMIT_S)
    workshop.gate.set()
    with pool.lease("a") as thing:
        assert thing is workshop.made[0], "what was opened for one who left serves the next"


def test_what_never_opens_has_failed_after_a_while_and_the_next_lease_opens_anew(workshop: Workshop) -> None:
    pool = Pool(workshop.open, open_limit_s=0.5)
    workshop.gate.clear()
    for _ in range(2):
        with pytest.raises(ConnectionFailed, match="no connection within"), pool.lease("a"):
            pass
    workshop.gate.set()
    with pool.lease("a") as thing:
        wait_until(lambda: len(workshop.made) == 3)
        wait_until(lambda: [each.close_count for each in workshop.made if each is not thing] == [1, 1])
        assert thing.close_count == 0
    pool.close()


def test_a_failure_is_told_to_all_who_waited_and_then_forgotten(
    pool: Pool[str, Thing], workshop: Workshop
) -> None:
    workshop.gate.clear()
    workshop.errors = [ConnectionFailed("refused")]

    def borrow() -> object:
        with pool.lease("a") as thing:
            return thing

    with ThreadPoolExecutor(3) as threads:
        borrowers = [threads.submit(borrow) for _ in range(3)]
        wait_until(lambda: pool._slots["a"].lease_count == 3)
        workshop.gate.set()
        for borrower in borrowers:
            with pytest.raises(ConnectionFailed, match="refused"):
                borrower.result(LIMIT_S)
    with pool.lease("a") as thing:
        assert thing.is_alive


def test_an_idle_value_is_closed_and_a_lent_one_is_not(workshop: Workshop) -> None:
    pool = Pool(workshop.open, idle_s=0.05)
    with ExitStack() as stack:
        lent = stack.enter_context(pool.lease("lent"))
        with pool.lease("idle") as idle:
            pass
        wait_until(lambda: idle.close_count == 1)
        assert lent.is_alive
    with pool.lease("idle") as again:
        assert again is not idle
    pool.close()


def test_closing_closes_all_and_refuses_the_rest(pool: Pool[str, Thing], workshop: Workshop) -> None:
    with pool.lease("a") as lent:
        with pool.lease("b"):
            pass
        pool.close()
        pool.close()
        assert lent.close_count == 1
    assert all(thing.close_count == 1 for thing in workshop.made)
    with pytest.raises(Stopped), pool.lease("a"):
        pass


def test_what_opens_too_late_is_closed(pool: Pool[str, Thing], workshop: Workshop) -> None:
    workshop.gate.clear()
    with ThreadPoolExecutor(1) as threads:
        late = threads.submit(lambda: pool.lease("a").__enter__())
        wait_until(lambda: workshop.most_at_once > 0)
        pool.close()
        with pytest.raises(Stopped):
            late.result(LIMIT_S)
    workshop.gate.set()
    wait_until(lambda: [thing.close_count for thing in workshop.made] == [1])


def test_no_thread_is_left_behind(workshop: Workshop) -> None:
    before = set(threading.enumerate())
    pool = Pool(workshop.open, idle_s=60)
    for key in "abca":
        with pool.lease(key) as thing:
            pass
        thing.is_alive = key == "b"
    pool.close()
    wait_until(lambda: set(threading.enumerate()) <= before)
