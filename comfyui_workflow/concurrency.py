"""The same for several items at a time, where each one mostly waits for the network.

    crew = Crew(4, stop_if_asked)
    with crew.results(work, items) as results:     # in the order of the items
        for result in results: ...                 # raises what the work raised

Leaving the block, by an error as well, takes the others along: their `crew.stop_if_asked` raises Stopped, and
the block ends when they have ended. One that does not heed it, since what it waits for never answers, is left
behind after a second; whoever waits for a result heeds `stop_if_asked` all the while.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from comfyui_workflow.errors import Stopped

Item = TypeVar("Item")
Result = TypeVar("Result")

HEED_S = 0.25
LEFT_BEHIND_AFTER_S = 1.0
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
        self._most = max(1, most)
        self._stop_if_asked = stop_if_asked
        self._is_over = threading.Event()

    def stop_if_asked(self) -> None:
        """For the work to call, often."""
        if self._is_over.is_set():
            raise Stopped("another one has failed")
        self._stop_if_asked()

    @contextmanager
    def results(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Iterator[Result]]:
        """Each in its place. Raises: as `groups`."""
        with self.groups(work, items) as groups:
            yield (result for group in groups for result in group)

    @contextmanager
    def groups(
        self, work: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[Iterator[list[Result]]]:
        """The same results in lists: the next one, as soon as it is there, and what is there behind it by
        then. Raises, from the results: what the work raises; what `stop_if_asked` raises."""
        tasks = [(item, Future[Result]()) for item in items]
        left = iter(tasks)
        taking = threading.Lock()

        def take_part() -> None:
            while not self._is_over.is_set():
                with taking:
                    task = next(left, None)
                if task is None:
                    return
                _carry_out(work, *task)

        threads = [
            threading.Thread(target=take_part, name=f"abreast {number}", daemon=True)
            for number in range(min(self._most, len(tasks)))
        ]
        for thread in threads:
            thread.start()
        try:
            yield self._grouped(deque(future for _, future in tasks))
        finally:
            self._is_over.set()
            until_s = time.monotonic() + LEFT_BEHIND_AFTER_S
            for thread in threads:
                thread.join(max(0.0, until_s - time.monotonic()))

    def _grouped(self, coming: "deque[Future[Result]]") -> Iterator[list[Result]]:
        """What has failed comes first in its group, so that nothing before it is lost."""
        while coming:
            while not wait([coming[0]], HEED_S).done:
                self._stop_if_asked()
            group = [coming.popleft().result()]
            while coming and coming[0].done() and coming[0].exception() is None:
                group.append(coming.popleft().result())
            yield group


def _carry_out(work: Callable[[Item], Result], item: Item, future: "Future[Result]") -> None:
    try:
        result = work(item)
    except BaseException as error:  # noqa: BLE001 - whoever waits for the result gets it
        future.set_exception(error)
    else:
        future.set_result(result)
