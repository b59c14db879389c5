"""Pool of shared values (connections), one per key: `with pool.lease(key, stop=...) as value:`.

Pool(open, *, canonical=None, idle_s=300.0, open_limit_s=300.0)
    lease(key, *, stop=None, timeout_s=None) -> context manager yielding the value
    close()                            closes every value; later leases raise Stopped

How it works: several leases share one value at the same time. The first lease of a key starts `open` in a
thread of its own, so a slow key does not block another key, and each lease can have its own timeout. An error
of `open` is raised in every lease that waited for it; the next lease calls `open` again. A value without a
lease is closed after `idle_s`.

Keys are the same value if `canonical` maps them to the same key: several texts can lead to one machine, and
one text to another machine than before.

`open` has timeouts of its own. `open_limit_s` is the limit in case one of them is missing: after it the
leases fail, and a value that opens later is closed.
"""

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ConnectionFailed, Stopped


class Closable(Protocol):
    """A value of a pool. `is_alive` must be fast: the pool reads it while it holds its lock."""

    @property
    def is_alive(self) -> bool: ...

    def close(self) -> None: ...


K = TypeVar("K", bound=Hashable)
T = TypeVar("T", bound=Closable)


class _Slot(Generic[T]):
    """One value of the pool, from opening to closed. All fields are guarded by the pool's lock."""

    def __init__(self, open_until_s: float) -> None:
        self.open_until_s = open_until_s
        self.value: T | None = None
        self.error: BaseException | None = None
        self.lease_count = 0
        self.idle_timer: threading.Timer | None = None

    @property
    def is_usable(self) -> bool:
        """True if the value is still opening, or open and alive."""
        return self.error is None and (self.value is None or self.value.is_alive)

    @property
    def is_resolved(self) -> bool:
        """True if the value is open or opening it has failed."""
        return self.error is not None or self.value is not None

    def cancel_idle_timer(self) -> None:
        if self.idle_timer:
            self.idle_timer.cancel()
            self.idle_timer = None


class Pool(Generic[K, T]):
    """See the module. Thread-safe."""

    def __init__(
        self,
        open: Callable[[K], T],
        *,
        canonical: Callable[[K], K] | None = None,
        idle_s: float = 300.0,
        open_limit_s: float = 300.0,
    ) -> None:
        self._open = open
        self._canonical = canonical
        self._idle_s = idle_s
        self._open_limit_s = open_limit_s
        self._changed = threading.Condition()
        self._slots: dict[K, _Slot[T]] = {}
        self._is_closed = False

    @contextmanager
    def lease(
        self, key: K, *, stop: CancelToken | None = None, timeout_s: float | None = None
    ) -> Iterator[T]:
        """Leases the value of a key. Opens it if there is no value, or the value is dead.

        Raises: every error of `open` and `canonical`; Stopped if `stop` is set or the pool is closed;
        TimeoutError.
        """
        key = self._canonical(key) if self._canonical else key
        slot = self._acquire(key)
        try:
            yield self._wait_for(slot, stop or CancelToken(), timeout_s)
        finally:
            self._release(key, slot)

    def close(self) -> None:
        """Closes every value, leased or not. A value that is still opening is closed once it is open.
        Idempotent."""
        with self._changed:
            self._is_closed = True
            slots = list(self._slots.values())
            self._slots.clear()
            for slot in slots:
                slot.cancel_idle_timer()
            self._changed.notify_all()
        for slot in slots:
            _close(slot)

    def _acquire(self, key: K) -> _Slot[T]:
        """Counts a lease on the key's slot, which may still be opening. Replaces a dead slot."""
        dead = None
        with self._changed:
            self._raise_if_closed()
            slot = self._slots.get(key)
            if slot:
                slot.cancel_idle_timer()
            if slot is None or not slot.is_usable:
                dead, slot = slot, self._start_opening(key)
            slot.lease_count += 1
        if dead:
            _close(dead)
        return slot

    def _start_opening(self, key: K) -> _Slot[T]:
        slot = self._slots[key] = _Slot[T](time.monotonic() + self._open_limit_s)
        threading.Thread(
            target=self._run_open, args=(key, slot), name=f"open {key}"[:60], daemon=True
        ).start()
        return slot

    def _run_open(self, key: K, slot: _Slot[T]) -> None:
        value, error = None, None
        try:
            value = self._open(key)
        except BaseException as caught:  # noqa: BLE001 - every waiting lease raises it again
            error = caught
        with self._changed:
            is_obsolete = self._is_closed or slot.error is not None
            slot.value, slot.error = value, slot.error or error
            if not is_obsolete:
                self._start_idle_timer_if_unused(key, slot)
            self._changed.notify_all()
        if is_obsolete:
            _close(slot)

    def _wait_for(self, slot: _Slot[T], stop: CancelToken, timeout_s: float | None) -> T:
        with stop.notifying(self._changed), self._changed:
            open_left_s = max(0.0, slot.open_until_s - time.monotonic())
            wait_s = open_left_s if timeout_s is None else min(timeout_s, open_left_s)
            self._changed.wait_for(lambda: self._is_closed or slot.is_resolved or stop.is_set, wait_s)
            stop.check()
            self._raise_if_closed()
            if not slot.is_resolved and time.monotonic() >= slot.open_until_s:
                slot.error = ConnectionFailed(f"no connection within {self._open_limit_s:.0f} s")
                self._changed.notify_all()
            if slot.error is not None:
                raise slot.error
            if slot.value is None:
                raise TimeoutError("the connection is not open yet")
            return slot.value

    def _release(self, key: K, slot: _Slot[T]) -> None:
        with self._changed:
            slot.lease_count -= 1
            self._start_idle_timer_if_unused(key, slot)

    def _start_idle_timer_if_unused(self, key: K, slot: _Slot[T]) -> None:
        """The caller holds the lock. A failed slot is removed at once, so that the next lease opens again."""
        if self._slots.get(key) is not slot:
            return
        if slot.error is not None:
            del self._slots[key]
        elif slot.value is not None and slot.lease_count == 0:
            slot.idle_timer = threading.Timer(self._idle_s, self._close_if_idle, (key, slot))
            slot.idle_timer.daemon = True
            slot.idle_timer.start()

    def _close_if_idle(self, key: K, slot: _Slot[T]) -> None:
        with self._changed:
            if slot.idle_timer is None or self._slots.get(key) is not slot:
                return
            del self._slots[key]
        _close(slot)

    def _raise_if_closed(self) -> None:
        if self._is_closed:
            raise Stopped("The server is stopping: no more connections are opened.")


def _close(slot: _Slot[T]) -> None:
    if slot.value is not None:
        slot.value.close()
