"""The same for several items at a time, where each one mostly waits for the network.

    crew = Crew(4, stop_if_asked)
    with crew.results(work, items) as results:     # in the order of the items
        for result in results: ...                 # raises what the work raised

Leaving the block, by an error as well, takes the others along: their `crew.stop_if_asked` raises Stopped, and
the block ends when they have ended.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from comfyui_workflow.errors import Stopped

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_AT_ONCE = 20


def parallel_map(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Ordered parallel map for I/O-bound work, with at most `MOST_AT_ONCE` threads. Raises what the work
    raised, after all of it has ended."""
    if len(items) <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(MOST_AT_ONCE, len(items)), thread_name_prefix="parallel map") as threads:
        return list(threads.map(work, items))


class Crew:
    def __init__(self, most: int, stop_if_asked: Callable[[], None]) -> None:
        self._most = most
        self._stop_if_asked = stop_if_asked
        self._is_over = threading.Event()

    def stop_if_asked(self) -> None:
        """For the work to call, often."""
        if self._is_over.is_set():
            raise Stopped("another one has failed")
        self._stop_if_asked()

    @contextmanager
    def results(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Iterator[Result]]:
        """Each in its place."""
        with self.groups(work, items) as groups:
            yield (result for group in groups for result in group)

    @contextmanager
    def groups(
        self, work: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[Iterator[list[Result]]]:
        """The same results in lists: the next one, as soon as it is there, and what is there behind it by
        then. Alone, an item has no thread of its own: each is worked on when its result is asked for."""
        if self._most <= 1 or len(items) <= 1:
            yield ([work(item)] for item in items)
            return
        with ThreadPoolExecutor(min(self._most, len(items)), thread_name_prefix="abreast") as threads:
            coming = deque(threads.submit(work, item) for item in items)
            try:
                yield _grouped(coming)
            finally:
                self._is_over.set()
                threads.shutdown(wait=False, cancel_futures=True)


def _grouped(coming: deque[Future[Result]]) -> Iterator[list[Result]]:
    """What has failed comes first in its group, so that nothing before it is lost."""
    while coming:
        group = [coming.popleft().result()]
        while coming and coming[0].done() and coming[0].exception() is None:
            group.append(coming.popleft().result())
        yield group
