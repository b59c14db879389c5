"""Event loop of the HTTP server: `epoll` for the handlers of waitress.

How it works. In each iteration, waitress' own loop asks every connection if it wants to read or write, and
passes all of them to the kernel again. With thousands of idle connections, every request costs milliseconds.
This loop asks a handler again only when its state may have changed: after one of its own events, or after a
call of `changed`. A worker thread calls `changed` when its work changes what a connection waits for.
Everything else runs in the thread of the loop.
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
    """Runs until `handlers` is empty. These are waitress' handlers by file descriptor.

    About once a second `sweep()` is called after the pending events. It returns an iterator, and the loop
    executes one step of it per iteration, so that no connection waits for a complete sweep."""

    def __init__(self, handlers: MutableMapping[int, Any], sweep: Callable[[], Iterator[None]]) -> None:
        self._handlers = handlers
        self._sweep = sweep
        self._selector = selectors.DefaultSelector()
        self._changed: deque[Any] = deque()

    def changed(self, handler: object) -> None:
        """Reports that a handler may wait for other events now.

        Thread-safe. A caller in another thread must wake the loop afterwards."""
        self._changed.append(handler)

    def forget(self, descriptor: int) -> None:
        """Unregisters a descriptor. Must be called before it is closed."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(descriptor)

    def run(self) -> None:
        """Runs the loop until there are no handlers left."""
        self._changed.extend(list(self._handlers.values()))
        sweep_at_s = time.monotonic() + SWEEP_EVERY_S
        sweeping: Iterator[None] | None = None
        try:
            while self._handlers:
                self._update_registrations()
                self._poll(0.0 if sweeping else max(0.0, sweep_at_s - time.monotonic()))
                if sweeping is None and time.monotonic() >= sweep_at_s:
                    sweeping, sweep_at_s = self._sweep(), time.monotonic() + SWEEP_EVERY_S
                if sweeping and next(sweeping, self) is self:  # the sweep is complete
                    sweeping = None
        finally:
            self._selector.close()

    def _poll(self, timeout_s: float) -> None:
        """Waits for events and dispatches them.

        A handler may be closed by an event of another handler, and its descriptor reused. So the descriptor
        is compared before each event."""
        for key, events in self._selector.select(timeout_s):
            handler = key.data
            if events & selectors.EVENT_READ and handler._fileno == key.fd:
                wasyncore.read(handler)
            if events & selectors.EVENT_WRITE and handler._fileno == key.fd:
                wasyncore.write(handler)
            self._changed.append(handler)

    def _update_registrations(self) -> None:
        while self._changed:
            handler = self._changed.popleft()
            descriptor = handler._fileno
            if descriptor is not None and self._handlers.get(descriptor) is handler:
                self._register(descriptor, handler, _events_of(handler))

    def _register(self, descriptor: int, handler: object, events: int) -> None:
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
