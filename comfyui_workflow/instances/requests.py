"""Calls to an instance on behalf of an HTTP request, with a timeout and limits on concurrent calls.

How it works: each call runs in its own thread, and the HTTP request waits for it for a limited time. The
limit per instance keeps one slow instance from using all slots.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from comfyui_workflow.errors import ConnectionFailed, ServerBusy
from comfyui_workflow.instances.model import Instance, key_of_instance
from comfyui_workflow.instances.state import InstanceState, Reachability
from comfyui_workflow.sessions.leases import ConcurrencyLimit, Sessions, lease_session
from comfyui_workflow.sessions.session import ComfyUISession

MOST_AT_ONCE = 8
MOST_PER_INSTANCE = 2
TIMEOUT_S = 10.0
_GRACE_S = 0.5
"""Extra wait, so that an error at the end of the timeout is reported with its own message."""

T = TypeVar("T")


class InstanceRequests:
    """Thread-safe."""

    def __init__(self, sessions: Sessions, state_of: Callable[[str], InstanceState]) -> None:
        self._sessions = sessions
        self._state_of = state_of
        self._slots = ConcurrencyLimit(
            MOST_AT_ONCE, f"{MOST_AT_ONCE} requests are waiting for instances just now"
        )
        self._lock = threading.Lock()
        self._call_counts: dict[str, int] = {}

    def ask(self, instance: Instance, work: Callable[[ComfyUISession], T]) -> T:
        """Runs `work` with a session of the instance and returns its result. Gives up after TIMEOUT_S, and
        at once if the instance is known to be unreachable. After a timeout the work may continue in its own
        thread; it then still counts as a call of its instance.
        Raises: InvalidAddress, InstanceError, ComfyUIError, ServerBusy, Stopped, and what the work raises."""
        self._refuse_if_unreachable(instance)
        with self._slots.taken():
            answer = self._start(instance, work)
            done, _ = wait([answer], timeout=TIMEOUT_S + _GRACE_S)
        if not done:
            raise ConnectionFailed(f"{instance.name} has not answered within {TIMEOUT_S:.0f} s; try again")
        return answer.result()

    def _refuse_if_unreachable(self, instance: Instance) -> None:
        state = self._state_of(instance.id)
        if state.reachability is Reachability.UNREACHABLE:
            raise ConnectionFailed(
                f"{instance.name} cannot be reached: {state.trouble or 'no reason is known'}"
            )

    def _start(self, instance: Instance, work: Callable[[ComfyUISession], T]) -> "Future[T]":
        key = key_of_instance(instance)
        answer: Future[T] = Future()

        def ask() -> None:
            """Frees its slot before it delivers the result: the receiver may then call again at once."""
            try:
                with lease_session(self._sessions, key, TIMEOUT_S) as session:
                    result = work(session)
            except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that waits
                self._release_slot(instance)
                answer.set_exception(error)
            else:
                self._release_slot(instance)
                answer.set_result(result)

        self._acquire_slot(instance)
        threading.Thread(target=ask, name=f"ask {instance.name}", daemon=True).start()
        return answer

    def _acquire_slot(self, instance: Instance) -> None:
        with self._lock:
            running = self._call_counts.get(instance.id, 0)
            if running >= MOST_PER_INSTANCE:
                raise ServerBusy(
                    f"{instance.name} is answering {running} requests already; try again in a moment"
                )
            self._call_counts[instance.id] = running + 1

    def _release_slot(self, instance: Instance) -> None:
        with self._lock:
            self._call_counts[instance.id] -= 1
            if not self._call_counts[instance.id]:
                del self._call_counts[instance.id]
