"""One shared value per key, lent to many at once: `with pool.lease(key, should_stop=...) as value:`.

Pool(open, idle_s=300.0)
    lease(key, *, should_stop=None) -> context manager yielding the value
    close()                            closes every value; later leases raise errors.Stopped
"""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    @property
    def is_alive(self) -> bool: ...

    def close(self) -> None: ...


K = TypeVar("K", bound=Hashable)
T = TypeVar("T", bound=Closable)


class Pool(Generic[K, T]):
    def __init__(self, open: Callable[[K], T], *, idle_s: float = 300.0) -> None:
        raise NotImplementedError

    def lease(self, key: K, *, should_stop: Callable[[], bool] | None = None) -> AbstractContextManager[T]:
        """The value of this key, opened if there is none or the one there is is dead.

        Raises: whatever `open` raises; errors.Stopped when `should_stop()` says so or the pool is closed.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Closes every value, lent or not. Idempotent."""
        raise NotImplementedError
