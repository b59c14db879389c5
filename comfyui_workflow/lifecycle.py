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
    """A step that a part does not need."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """A part of the server. `stop` comes also after `open` alone, and must be quick."""

    name: str
    open: Callable[[], object] = nothing
    """Takes what it needs: files, locks. Nothing is changed that was there before."""
    recover: Callable[[], object] = nothing
    """Mends what an earlier process left half done. All parts are open."""
    start: Callable[[], object] = nothing
    """Begins its work. All parts are recovered."""
    stop: Callable[[], object] = nothing


class Lifecycle:
    """May be stopped from any thread, and more than once."""

    def __init__(self, parts: Sequence[Component]) -> None:
        self.parts = tuple(parts)
        self._lock = threading.Lock()
        self._opened: list[Component] = []

    def open(self) -> None:
        """Nothing but the first step. Raises: what a part raises; then nothing is left open."""
        with self._stopped_on_error():
            for part in self.parts:
                part.open()
                with self._lock:
                    self._opened.append(part)

    def start(self) -> None:
        """All steps. Raises: as `open`."""
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
        """Each part once, whatever becomes of the others."""
        while True:
            with self._lock:
                part = self._opened.pop() if self._opened else None
            if part is None:
                return
            try:
                part.stop()
            except Exception:  # the lock of the data is let go by a part that comes later
                log.exception("a bug of this server: %s did not stop", part.name)


class Notifier:
    """Tells those who listen that something has changed. May be used from any thread."""

    def __init__(self) -> None:
        self._hearers: list[Callable[[], None]] = []

    def listen(self, hear: Callable[[], None]) -> None:
        """`hear` is called by whoever notifies, so it must return at once."""
        self._hearers.append(hear)

    def notify(self) -> None:
        for hear in self._hearers:
            hear()
