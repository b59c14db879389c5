"""Lifecycle of the server's components: opened, recovered, started and stopped in one declared order.

How it works. A `Component` says what it does at each step; the order of all components is one tuple. A start
calls `open` on all of them, then `recover` on all, then `start` on all. A stop calls `stop` on those that
were opened, in reverse order. If a step of the start fails, the opened components are stopped and the error
is raised.

A `Notifier` connects components that would otherwise need references to each other; it is created first.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

log = logging.getLogger(__name__)


def nothing() -> None:
    """Default of a step that the component does not need."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """One part of the server. `stop` may also be called after `open` alone. It must return quickly."""

    name: str
    open: Callable[[], object] = nothing
    """Acquires files and locks. Changes no existing data."""
    recover: Callable[[], object] = nothing
    """Repairs what an earlier process left unfinished. All components are open by then."""
    start: Callable[[], object] = nothing
    """Starts the component's work. All components are recovered by then."""
    stop: Callable[[], object] = nothing


class Lifecycle:
    """Opens, recovers, starts and stops components. `stop` may be called from any thread, and more than
    once."""

    def __init__(self, parts: Sequence[Component]) -> None:
        self.parts = tuple(parts)
        self._lock = threading.Lock()
        self._opened: list[Component] = []

    def open(self) -> None:
        """Runs only the `open` step. Raises: the error of a component; then no component stays open."""
        with self._stopped_on_error():
            for part in self.parts:
                part.open()
                with self._lock:
                    self._opened.append(part)

    def start(self) -> None:
        """Runs all steps. Raises: as `open`."""
        self.open()
        with self._stopped_on_error():
            for part in self.parts:
                part.recover()
            for part in self.parts:
                part.start()

    @contextmanager
    def _stopped_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops each opened component once. An error of one component does not keep the others open."""
        while True:
            with self._lock:
                part = self._opened.pop() if self._opened else None
            if part is None:
                return
            try:
                part.stop()
            except Exception:  # a later component releases the lock of the data directory
                log.exception("a bug of this server: %s did not stop", part.name)


class Notifier:
    """Calls all registered callbacks when something has changed. Thread-safe."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def listen(self, callback: Callable[[], None]) -> None:
        """Registers a callback. `notify` calls it in the notifying thread, so it must return at once."""
        self._listeners.append(callback)

    def notify(self) -> None:
        for callback in self._listeners:
            callback()
