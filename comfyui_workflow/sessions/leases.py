"""Leases a session to an HTTP request, with a timeout and a limit on concurrent leases."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from comfyui_workflow.errors import ConnectionFailed, ServerBusy
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey
from comfyui_workflow.ssh.pool import Pool

Sessions = Pool[InstanceKey, ComfyUISession]


@contextmanager
def lease_session(sessions: Sessions, key: InstanceKey, patience_s: float) -> Iterator[ComfyUISession]:
    """Yields the session of the instance; connects first if there is none. Raises: InstanceError;
    ConnectionFailed after `patience_s`; Stopped when the server stops."""
    with ExitStack() as stack:
        try:
            session = stack.enter_context(sessions.lease(key, timeout_s=patience_s))
        except TimeoutError as error:
            raise ConnectionFailed(
                f"No connection to {key.address.label} within {patience_s:.0f} s; try again"
            ) from error
        yield session


class ConcurrencyLimit:
    """Limits how many HTTP requests wait for instances at the same time. Each of them occupies a thread of
    the server, and most threads must stay free for other requests."""

    def __init__(self, max_concurrent: int, busy_sentence: str) -> None:
        self._free = threading.BoundedSemaphore(max_concurrent)
        self._busy_sentence = busy_sentence

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Occupies one slot. Raises: ServerBusy if no slot is free."""
        if not self._free.acquire(blocking=False):
            raise ServerBusy(f"{self._busy_sentence}; try again in a moment")
        try:
            yield
        finally:
            self._free.release()
