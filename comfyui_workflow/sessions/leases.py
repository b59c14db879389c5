"""Leases sessions: to a run, at the port of its prompt; to an HTTP request, with a timeout and a limit on
concurrent leases."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial

from comfyui_workflow.errors import ConnectionFailed, ServerBusy
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey
from comfyui_workflow.ssh.pool import Pool

Sessions = Pool[InstanceKey, ComfyUISession]
Lease = Callable[[InstanceKey], AbstractContextManager[ComfyUISession]]
"""`sessions.lease`, with a stop or a timeout."""


@contextmanager
def lease_comfyui(
    lease: Lease, key: InstanceKey, port: int | None = None, *, again: bool = False
) -> Iterator[ComfyUISession]:
    """Yields the session of the instance, which leads to a ComfyUI that answers (`ComfyUISession.reach`).
    With `port`, it leads to the ComfyUI on that port: if the shared session leads to another one, a session
    of its own is opened. Raises: what `lease` raises; InstanceError, ComfyUIError."""
    with ExitStack() as stack:
        session = stack.enter_context(lease(key))
        is_right = session.reach(port, again=again)
        if not is_right and port is not None:
            stack.close()
            session = stack.enter_context(lease(replace(key, comfyui_port=port, is_exact=True)))
            session.reach(port, again=again)
        yield session


@contextmanager
def lease_session(
    sessions: Sessions, key: InstanceKey, patience_s: float, port: int | None = None
) -> Iterator[ComfyUISession]:
    """Yields the session of the instance, as `lease_comfyui`; connects first if there is none. Raises:
    InstanceError, ComfyUIError; ConnectionFailed after `patience_s`; Stopped when the server stops."""
    with ExitStack() as stack:
        try:
            lease = partial(sessions.lease, timeout_s=patience_s)
            session = stack.enter_context(lease_comfyui(lease, key, port))
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
