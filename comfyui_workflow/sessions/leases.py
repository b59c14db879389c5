"""Leases sessions: to a run, at the port of its prompt; to an HTTP request, with a timeout and a limit on
concurrent leases."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ConnectionFailed, ServerBusy
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey
from comfyui_workflow.ssh.pool import Pool

Sessions = Pool[InstanceKey, ComfyUISession]


@contextmanager
def lease_comfyui(
    sessions: Sessions,
    key: InstanceKey,
    port: int | None = None,
    *,
    again: bool = False,
    stop: CancelToken | None = None,
    timeout_s: float | None = None,
) -> Iterator[ComfyUISession]:
    """Yields the session of the instance, which leads to a ComfyUI that answers (`ComfyUISession.reach`).
    With `port`, it leads to the ComfyUI on that port: if the shared session leads to another one, a session of
    its own is opened.

    Raises: InstanceError, ComfyUIError, Stopped; TimeoutError."""
    with ExitStack() as stack:
        session = stack.enter_context(sessions.lease(key, stop=stop, timeout_s=timeout_s))
        is_right = session.reach(port, again=again)
        if not is_right and port is not None:
            stack.close()
            exact = replace(key, comfyui_port=port, is_exact=True)
            session = stack.enter_context(sessions.lease(exact, stop=stop, timeout_s=timeout_s))
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
            session = stack.enter_context(lease_comfyui(sessions, key, port, timeout_s=patience_s))
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
