"""Threads that stop when they are asked to, and parallel maps for I/O-bound work.

How it works. A `CancelToken` is a request to stop. Whoever asks calls `cancel`; whoever works calls `check`,
which raises, or waits on the token, which wakes it at once. Nobody polls:

    token.wait(2.0)                                      # True as soon as it is cancelled
    with token.notifying(condition), condition:          # a condition and a token at the same time
        condition.wait_for(lambda: is_ready() or token.is_set)

A token may have parents: it is cancelled with the first of them, for the same reason.

A `ParallelMap` is an ordered parallel map that stops as a whole:

    crew = Crew(4, stop)
    with crew.results(work, items) as results:     # in the order of the items
        for result in results: ...                 # raises what the work raised

Leaving the block, by an error as well, cancels `crew.stop`, which the work checks; the block ends when the
work has ended. Work that does not check it, since what it waits for never answers, is left behind after a
second; whoever waits for a result is woken by `stop` all the while.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TypeVar
from weakref import WeakSet

from comfyui_workflow.errors import Stopped

Item = TypeVar("Item")
Result = TypeVar("Result")

LEFT_BEHIND_AFTER_S = 1.0
MOST_AT_ONCE = 20


class CancelToken:
    """A request to stop that wakes its waiters. May be used from any thread."""

    def __init__(self, *parents: "CancelToken") -> None:
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._reason = Stopped("cancelled")
        self._children: WeakSet[CancelToken] = WeakSet()
        self._wakers: list[Callable[[], object]] = []
        self._parents = parents  # they know their children weakly, and must not end between two of them
        for parent in parents:
            parent._take_in(self)

    @property
    def is_set(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self, reason: str | Stopped = "cancelled") -> None:
        """Wakes everybody who waits, here and at children; the first reason stays. To be called with no lock
        held that a waker takes."""
        with self._lock:
            if self.is_set:
                return
            self._reason = reason if isinstance(reason, Stopped) else Stopped(reason)
            self._cancelled.set()
            children, wakers = list(self._children), list(self._wakers)
        for child in children:
            child.cancel(self._reason)
        for wake in wakers:
            wake()

    def check(self) -> None:
        """Raises: Stopped, or the error that it was cancelled with."""
        if self.is_set:
            raise type(self._reason)(*self._reason.args)  # a new one: several threads may raise it

    def wait(self, timeout_s: float | None) -> bool:
        """Whether it is cancelled, as soon as it is, or when the time is over."""
        return self._cancelled.wait(timeout_s)

    @contextmanager
    def calling(self, wake: Callable[[], object]) -> Iterator[None]:
        """`wake` is called once when the token is cancelled within the block, or has been before; by the
        thread that cancels it, so it must return at once."""
        with self._lock:
            is_late = self.is_set
            if not is_late:
                self._wakers.append(wake)
        if is_late:
            wake()
        try:
            yield
        finally:
            with self._lock:
                if wake in self._wakers:
                    self._wakers.remove(wake)

    def notifying(self, condition: threading.Condition) -> AbstractContextManager[None]:
        """Wakes whoever waits on the condition, in the block, when the token is cancelled. To be entered
        before the condition."""
        return self.calling(partial(_notify_all, condition))

    def _take_in(self, child: "CancelToken") -> None:
        with self._lock:
            if not self.is_set:
                self._children.add(child)
                return
        child.cancel(self._reason)


def _notify_all(condition: threading.Condition) -> None:
    with condition:
        condition.notify_all()


def parallel_map(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Ordered parallel map for I/O-bound work, with at most `MOST_AT_ONCE` threads. Raises what the work
    raised, after all of it has ended."""
    if len(items) <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(MOST_AT_ONCE, len(items)), thread_name_prefix="parallel map") as threads:
        return list(threads.map(work, items))


class ParallelMap:
    def __init__(self, most: int, stop: CancelToken) -> None:
        self._most = max(1, most)
        self._asked = stop
        self.stop = CancelToken(stop)
        """For the work to check, often: it is over too when another item has failed."""

    @contextmanager
    def results(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Iterator[Result]]:
        """One for each item, in order. Raises: as `groups`."""
        with self.groups(work, items) as groups:
            yield (result for group in groups for result in group)

    @contextmanager
    def groups(
        self, work: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[Iterator[list[Result]]]:
        """The same results in lists: the next one, as soon as it is there, and what is there behind it by
        then. Raises, from the results: what the work raises; what `stop.check` raises."""
        tasks = [(item, Future[Result]()) for item in items]
        left = iter(tasks)
        taking = threading.Lock()

        def take_part() -> None:
            while not self.stop.is_set:
                with taking:
                    task = next(left, None)
                if task is None:
                    return
                _carry_out(work, *task)

        threads = [
            threading.Thread(target=take_part, name=f"parallel map {number}", daemon=True)
            for number in range(min(self._most, len(tasks)))
        ]
        for thread in threads:
            thread.start()
        try:
            yield self._grouped(deque(future for _, future in tasks))
        finally:
            self.stop.cancel("another one has failed")
            until_s = time.monotonic() + LEFT_BEHIND_AFTER_S
            for thread in threads:
                thread.join(max(0.0, until_s - time.monotonic()))

    def _grouped(self, coming: "deque[Future[Result]]") -> Iterator[list[Result]]:
        """What has failed comes first in its group, so that nothing before it is lost."""
        while coming:
            self._wait_for(coming[0])
            group = [coming.popleft().result()]
            while coming and coming[0].done() and coming[0].exception() is None:
                group.append(coming.popleft().result())
            yield group

    def _wait_for(self, future: "Future[Result]") -> None:
        """Raises: what `stop.check` raises."""
        is_time = threading.Event()
        future.add_done_callback(lambda _: is_time.set())
        with self._asked.calling(is_time.set):
            is_time.wait()
        if not future.done():
            self._asked.check()


def _carry_out(work: Callable[[Item], Result], item: Item, future: "Future[Result]") -> None:
    try:
        result = work(item)
    except BaseException as error:  # noqa: BLE001 - whoever waits for the result gets it
        future.set_exception(error)
    else:
        future.set_result(result)
