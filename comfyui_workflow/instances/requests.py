"""Asking one instance something for a request, without making a request about another one wait."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from comfyui_workflow.errors import ConnectionFailed, ServerBusy
from comfyui_workflow.instances.model import Instance, key_of_instance
from comfyui_workflow.instances.state import InstanceState, Reachability
from comfyui_workflow.sessions.leases import ConcurrencyLimit, Sessions, lease_within
from comfyui_workflow.sessions.session import ComfyUISession

MOST_AT_ONCE = 8
MOST_OF_ONE = 2
PATIENCE_S = 10.0
_LAST_WORD_S = 0.5
"""For what went wrong at the last moment to say so itself."""

T = TypeVar("T")


class InstanceRequests:
    """May be called from any thread."""

    def __init__(self, sessions: Sessions, state_of: Callable[[str], InstanceState]) -> None:
        self._sessions = sessions
        self._state_of = state_of
        self._places = ConcurrencyLimit(
            MOST_AT_ONCE, f"{MOST_AT_ONCE} requests are waiting for instances just now"
        )
        self._lock = threading.Lock()
        self._asked: dict[str, int] = {}

    def ask(self, instance: Instance, work: Callable[[ComfyUISession], T]) -> T:
        """Given up after ten seconds; at once where it is known that the instance cannot be reached. The work
        itself may go on a little in its own thread, which counts against its instance.
        Raises: InvalidAddress, InstanceError, ComfyUIError, ServerBusy, Stopped, and what the work raises."""
        self._refuse_if_away(instance)
        with self._places.taken():
            answer = self._start(instance, work)
            done, _ = wait([answer], timeout=PATIENCE_S + _LAST_WORD_S)
        if not done:
            raise ConnectionFailed(f"{instance.name} has not answered within {PATIENCE_S:.0f} s; try again")
        return answer.result()

    def _refuse_if_away(self, instance: Instance) -> None:
        state = self._state_of(instance.id)
        if state.reachability is Reachability.UNREACHABLE:
            raise ConnectionFailed(
                f"{instance.name} cannot be reached: {state.trouble or 'no reason is known'}"
            )

    def _start(self, instance: Instance, work: Callable[[ComfyUISession], T]) -> "Future[T]":
        key = key_of_instance(instance)
        answer: Future[T] = Future()

        def ask() -> None:
            """Its place is free before the answer is there: who has it may ask again."""
            try:
                with lease_within(self._sessions, key, PATIENCE_S) as session:
                    found = work(session)
            except BaseException as error:  # noqa: BLE001 - it is raised again where the answer is waited for
                self._leave(instance)
                answer.set_exception(error)
            else:
                self._leave(instance)
                answer.set_result(found)

        self._enter(instance)
        threading.Thread(target=ask, name=f"ask {instance.name}", daemon=True).start()
        return answer

    def _enter(self, instance: Instance) -> None:
        with self._lock:
            asked = self._asked.get(instance.id, 0)
            if asked >= MOST_OF_ONE:
                raise ServerBusy(
                    f"{instance.name} is being asked {asked} things already; try again in a moment"
                )
            self._asked[instance.id] = asked + 1

    def _leave(self, instance: Instance) -> None:
        with self._lock:
            self._asked[instance.id] -= 1
            if not self._asked[instance.id]:
                del self._asked[instance.id]
