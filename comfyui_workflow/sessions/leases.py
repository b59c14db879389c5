"""A link for whoever waits in a request of somebody's: for so long at most, and so many of them at once."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from comfyui_workflow.errors import ConnectionFailed, ServerBusy
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey
from comfyui_workflow.ssh.pool import Pool

Sessions = Pool[InstanceKey, ComfyUISession]


@contextmanager
def lease_within(sessions: Sessions, key: InstanceKey, patience_s: float) -> Iterator[ComfyUISession]:
    """Raises: InstanceError, ConnectionFailed when the time is over; Stopped when the server stops."""
    with ExitStack() as stack:
        try:
            session = stack.enter_context(sessions.lease(key, timeout_s=patience_s))
        except TimeoutError as error:
            raise ConnectionFailed(
                f"{key.address.label} has not let us in within {patience_s:.0f} s; try again"
            ) from error
        yield session


class ConcurrencyLimit:
    """Who asks an instance waits for it in a thread of the server; most of those are left for the others."""

    def __init__(self, most_at_once: int, busy_sentence: str) -> None:
        self._free = threading.BoundedSemaphore(most_at_once)
        self._busy_sentence = busy_sentence

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Raises: ServerBusy when there is none left."""
        if not self._free.acquire(blocking=False):
            raise ServerBusy(f"{self._busy_sentence}; try again in a moment")
        try:
            yield
        finally:
            self._free.release()
