"""The event loop of the HTTP server: `epoll` under waitress' handlers.

waitress' own loop asks each connection at each turn whether it wants to read or write, and hands all of them
to the kernel again: with thousands of idle connections every request costs milliseconds. Here a handler is
asked again only when something may have changed: after an event of its own, and when it was reported with
`changed`, which a thread does whose work changes what a connection waits for. Everything else runs on the
loop's thread.
"""

import selectors
import time
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import suppress
from typing import Any

from waitress import wasyncore

SWEEP_EVERY_S = 1.0


class EventLoop:
    """`handlers` by file descriptor, as waitress keeps them; it ends when there are none left. `sweep()`
    is begun about once a second, after the events that had come by then; a step of it is taken between two
    turns, so that nobody waits for all of it."""

    def __init__(self, handlers: MutableMapping[int, Any], sweep: Callable[[], Iterator[None]]) -> None:
        self._handlers = handlers
        self._sweep = sweep
        self._selector = selectors.DefaultSelector()
        self._changed: deque[Any] = deque()

    def changed(self, handler: object) -> None:
        """What it waits for may be something else now. From any thread; another one than the loop's wakes
        the loop afterwards."""
        self._changed.append(handler)

    def forget(self, descriptor: int) -> None:
        """Before it is closed."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(descriptor)

    def run(self) -> None:
        self._changed.extend(list(self._handlers.values()))
        sweep_at_s = time.monotonic() + SWEEP_EVERY_S
        sweeping: Iterator[None] | None = None
        try:
            while self._handlers:
                self._follow_changes()
                self._turn(0.0 if sweeping else max(0.0, sweep_at_s - time.monotonic()))
                if sweeping is None and time.monotonic() >= sweep_at_s:
                    sweeping, sweep_at_s = self._sweep(), time.monotonic() + SWEEP_EVERY_S
                if sweeping and next(sweeping, self) is self:  # it has ended
                    sweeping = None
        finally:
            self._selector.close()

    def _turn(self, timeout_s: float) -> None:
        """A handler that another one's event has closed gets none: its descriptor may be a new one's."""
        for key, events in self._selector.select(timeout_s):
            handler = key.data
            if events & selectors.EVENT_READ and handler._fileno == key.fd:
                wasyncore.read(handler)
            if events & selectors.EVENT_WRITE and handler._fileno == key.fd:
                wasyncore.write(handler)
            self._changed.append(handler)

    def _follow_changes(self) -> None:
        while self._changed:
            handler = self._changed.popleft()
            descriptor = handler._fileno
            if descriptor is not None and self._handlers.get(descriptor) is handler:
                self._watch(descriptor, handler, _events_of(handler))

    def _watch(self, descriptor: int, handler: object, events: int) -> None:
        known = self._selector.get_map().get(descriptor)
        if known is None:
            if events:
                self._selector.register(descriptor, events, handler)
        elif not events:
            self._selector.unregister(descriptor)
        elif (known.events, known.data) != (events, handler):
            self._selector.modify(descriptor, events, handler)


def _events_of(handler: Any) -> int:
    reads = selectors.EVENT_READ if handler.readable() else 0
    writes = selectors.EVENT_WRITE if handler.writable() and not handler.accepting else 0
    return reads | writes
