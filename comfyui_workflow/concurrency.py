"""Threads that stop when they are asked to, and parallel maps for I/O-bound work.

How it works. A `CancelToken` is a request to stop. One thread calls `cancel`. The working thread calls
`check`, which raises, or waits on the token, which wakes it at once. No thread polls:

    token.wait(2.0)                                      # True as soon as it is cancelled
    with token.notifying(condition), condition:          # wait for a condition and a token together
        condition.wait_for(lambda: is_ready() or token.is_set)

A token may have parents. It is cancelled with the first cancelled parent, for the same reason.

A `ParallelMap` is an ordered parallel map that stops as a whole:

    parallel = ParallelMap(4, stop)
    with parallel.results(work, items) as results:       # in the order of the items
        for result in results: ...                       # raises what the work raised

Leaving the block, also by an error, cancels `parallel.stop`, which the work must check. The block ends when
the work has ended. Work that does not check the token, because it waits for an answer that never comes, is
abandoned after one second. A thread that waits for a result is woken by `stop` at any time.

`run_in_thread` is for event loops: it awaits work that blocks.
"""

import asyncio
import logging
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

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

ABANDONED_AFTER_S = 1.0
MOST_AT_ONCE = 20


class KeyedLocks:
    """A lock for each key. It is one of a fixed number: different keys rarely share one. Thread-safe."""

    def __init__(
        self, count: int = 64, make: Callable[[], AbstractContextManager[bool]] = threading.Lock
    ) -> None:
        self._locks = [make() for _ in range(count)]

    def of(self, key: str) -> AbstractContextManager[bool]:
        return self._locks[hash(key) % len(self._locks)]


class CancelToken:
    """A request to stop that wakes its waiters. Thread-safe."""

    def __init__(self, *parents: "CancelToken") -> None:
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._reason = Stopped("cancelled")
        self._children: WeakSet[CancelToken] = WeakSet()
        self._wakers: list[Callable[[], object]] = []
        self._parents = parents  # parents hold children weakly: a token between two others must stay alive
        for parent in parents:
            parent._add_child(self)

    @property
    def is_set(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self, reason: str | Stopped = "cancelled") -> None:
        """Wakes all waiters of this token and of its children. Later calls change nothing: the first reason
        stays. The caller must hold no lock that a waker acquires."""
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
        """Raises: Stopped, or the error that the token was cancelled with."""
        if self.is_set:
            raise type(self._reason)(*self._reason.args)  # a new object: several threads may raise it

    def wait(self, timeout_s: float | None) -> bool:
        """Waits until the token is cancelled or the timeout is over. Returns True if the token is
        cancelled."""
        return self._cancelled.wait(timeout_s)

    @contextmanager
    def on_cancel(self, wake: Callable[[], object]) -> Iterator[None]:
        """Calls `wake` once if the token is cancelled within the block, or was cancelled before. The
        cancelling thread makes the call, so `wake` must return at once."""
        with self._lock:
            is_already_set = self.is_set
            if not is_already_set:
                self._wakers.append(wake)
        if is_already_set:
            wake()
        try:
            yield
        finally:
            with self._lock:
                if wake in self._wakers:
                    self._wakers.remove(wake)

    def notifying(self, condition: threading.Condition) -> AbstractContextManager[None]:
        """Notifies the waiters of `condition` when the token is cancelled within the block. Enter it before
        the condition."""
        return self.on_cancel(partial(_notify_all, condition))

    def _add_child(self, child: "CancelToken") -> None:
        with self._lock:
            if not self.is_set:
                self._children.add(child)
                return
        child.cancel(self._reason)


def _notify_all(condition: threading.Condition) -> None:
    with condition:
        condition.notify_all()


def parallel_map(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Ordered parallel map for I/O-bound work, with at most `MOST_AT_ONCE` threads. Raises: the error of the
    work, after all items have ended."""
    if len(items) <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(MOST_AT_ONCE, len(items)), thread_name_prefix="parallel map") as threads:
        return list(threads.map(work, items))


class ParallelMap:
    """Ordered parallel map with at most `most` threads, which `stop` cancels as a whole."""

    def __init__(self, most: int, stop: CancelToken) -> None:
        self._most = max(1, most)
        self._caller_stop = stop
        self.stop = CancelToken(stop)
        """The token that the work must check often. It is also cancelled when another item has failed."""

    @contextmanager
    def results(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Iterator[Result]]:
        """Yields one result for each item, in order. Raises: as `groups`."""
        with self.groups(work, items) as groups:
            yield (result for group in groups for result in group)

    @contextmanager
    def groups(
        self, work: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[Iterator[list[Result]]]:
        """Yields the results in lists: the next result as soon as it exists, with the finished results that
        follow it. Raises, from the iterator: the error of the work; the error of `stop.check`."""
        tasks = [(item, Future[Result]()) for item in items]
        remaining = iter(tasks)
        lock = threading.Lock()

        def run_items() -> None:
            while not self.stop.is_set:
                with lock:
                    task = next(remaining, None)
                if task is None:
                    return
                _run_item(work, *task)

        threads = [
            threading.Thread(target=run_items, name=f"parallel map {number}", daemon=True)
            for number in range(min(self._most, len(tasks)))
        ]
        for thread in threads:
            thread.start()
        try:
            yield self._grouped(deque(future for _, future in tasks))
        finally:
            self.stop.cancel("another item has failed")
            deadline_s = time.monotonic() + ABANDONED_AFTER_S
            for thread in threads:
                thread.join(max(0.0, deadline_s - time.monotonic()))

    def _grouped(self, pending: "deque[Future[Result]]") -> Iterator[list[Result]]:
        """Puts a failed result first in its group, so that no result before it is lost."""
        while pending:
            self._wait_for(pending[0])
            group = [pending.popleft().result()]
            while pending and pending[0].done() and pending[0].exception() is None:
                group.append(pending.popleft().result())
            yield group

    def _wait_for(self, future: "Future[Result]") -> None:
        """Raises: the error of `stop.check`."""
        is_woken = threading.Event()
        future.add_done_callback(lambda _: is_woken.set())
        with self._caller_stop.on_cancel(is_woken.set):
            is_woken.wait()
        if not future.done():
            self._caller_stop.check()


def _run_item(work: Callable[[Item], Result], item: Item, future: "Future[Result]") -> None:
    try:
        result = work(item)
    except BaseException as error:  # noqa: BLE001 - the thread that waits for the result raises it
        future.set_exception(error)
    else:
        future.set_result(result)


async def run_in_thread(work: Callable[[], Result], name: str) -> Result:
    """Runs `work` in a daemon thread, and returns its result. The threads of `asyncio.to_thread` would keep
    the process alive. Raises: what `work` raises."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def resolve(done: "Future[Result]") -> None:
        if future.done():
            return
        error = done.exception()
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(done.result())

    def run() -> None:
        done = Future[Result]()
        _run_item(lambda _: work(), None, done)
        try:
            loop.call_soon_threadsafe(resolve, done)
        except RuntimeError:
            log.debug("the event loop has ended before the thread %s", name)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future
