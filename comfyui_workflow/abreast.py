"""The same for several items at a time, where each one mostly waits for the network.

    crew = Crew(4, stop_if_asked)
    with crew.results(work, items) as results:     # in the order of the items
        for result in results: ...                 # raises what the work raised

Leaving the block, by an error as well, takes the others along: their `crew.stop_if_asked` raises Stopped, and
the block ends when they have ended.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from comfyui_workflow.errors import Stopped

Item = TypeVar("Item")
Result = TypeVar("Result")


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
        """Alone, an item has no thread of its own: each is worked on when its result is asked for."""
        if self._most <= 1 or len(items) <= 1:
            yield map(work, items)
            return
        with ThreadPoolExecutor(min(self._most, len(items)), thread_name_prefix="abreast") as threads:
            coming = [threads.submit(work, item) for item in items]
            try:
                yield (each.result() for each in coming)
            finally:
                self._is_over.set()
                threads.shutdown(wait=False, cancel_futures=True)
