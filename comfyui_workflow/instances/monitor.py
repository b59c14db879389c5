"""What is going on at each instance that somebody wants: one thread each, so that none waits for another.

An instance is wanted for a while after each `acquire`, and from `connect` to `disconnect`. While it is, its
session is kept open and polled every few seconds; the result is a frozen `InstanceState` that any thread may
read without waiting.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from comfyui_workflow.comfyui.client import answer_or
from comfyui_workflow.comfyui.queue import QueueSnapshot
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import HostKeyRefused, Stopped, WorkflowError
from comfyui_workflow.instances.model import Instance, key_of_instance
from comfyui_workflow.instances.state import InstanceState, Prompts, Reachability
from comfyui_workflow.instances.usage import UsageLedger
from comfyui_workflow.retry import Backoff
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey
from comfyui_workflow.ssh.pool import Pool
from comfyui_workflow.stores.journal import now

log = logging.getLogger(__name__)

LOOK_S = 2.0
HOPELESS_WAIT_S = 300.0
"""After a key or a host key that is not accepted: SSH servers ban who tries again and again."""
SYSTEM_LOOK_S = 10.0
"""How often the memory of the GPU is asked for."""


@dataclass(frozen=True, kw_only=True)
class MonitorOptions:
    wanted_for_s: float = 300.0
    idle_warning_s: float = 900.0


@dataclass(frozen=True, kw_only=True)
class MonitorContext:
    """What all watches share."""

    sessions: Pool[InstanceKey, ComfyUISession]
    ledger: UsageLedger
    options: MonitorOptions
    is_given_up: Callable[[str], bool | None]
    """Whether our run wants the prompt of that correlation no more; None for a run that is not ours."""
    tell: Callable[[], None]
    """Called, with no lock held, when an instance became ready or ceased to be."""


class InstanceMonitor:
    """One instance. Its thread ends when nobody wants it any more, and begins anew when somebody does."""

    def __init__(self, instance: Instance, context: MonitorContext) -> None:
        self.instance = instance
        self._context = context
        self._wanted_until_s = 0.0
        self._state = InstanceState()
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._leaving = CancelToken()
        """Of the lease that is waited for just now."""
        self._is_over = False
        self._is_in_trouble = False
        self._system_asked_s = -inf
        self._looked_at_s: float | None = None
        self._was_busy = False
        self._has_warned = False
        self._thread: threading.Thread | None = None
        self._socket: int | None = None
        self._marker: str | None = None

    @property
    def state(self) -> InstanceState:
        return self._state

    @property
    def wanted_for_s(self) -> float:
        """From now on; 0 or less when nobody wants it."""
        return 0.0 if self._is_over else self._wanted_until_s - time.monotonic()

    @property
    def is_wanted(self) -> bool:
        return self.wanted_for_s > 0

    def acquire(self, for_s: float) -> None:
        with self._lock:
            self._wanted_until_s = max(self._wanted_until_s, time.monotonic() + for_s)
            if self._is_over or self._thread is not None:
                return
            if not self._state.is_ready:
                self._state = replace(
                    self._state, reachability=Reachability.CONNECTING, connecting_since=now()
                )
            self._thread = threading.Thread(
                target=self._run, name=f"watch {self.instance.name}"[:60], daemon=True
            )
            self._thread.start()

    def release(self) -> None:
        self._wanted_until_s = 0.0
        self._leave()

    def _leave(self) -> None:
        self._leaving.cancel("nobody wants the instance any more")
        self._woken.set()

    def wake(self) -> None:
        """Whatever it waits for, it looks now."""
        self._woken.set()

    def report(self, error: Exception) -> None:
        """Not ready until it was looked at again."""
        if self._state.is_ready:
            self._is_in_trouble = True
            self._set_trouble(error)
            self._woken.set()

    def memory_emptied(self) -> None:
        self._set(memory_emptied_at=now())

    def close(self) -> None:
        self._is_over = True
        self._leave()

    def join(self, timeout_s: float) -> None:
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    def _run(self) -> None:
        patience = Backoff()
        while True:
            with self._lock:
                if not self.is_wanted:
                    self._thread = None
                    self._state = replace(self._state, reachability=Reachability.UNKNOWN)
                    break
            can_pass = self._look_on_until_trouble(patience)
            self._leave_off()
            if self.is_wanted:
                self._wait(patience.next_wait_s() if can_pass else HOPELESS_WAIT_S)
        self._context.tell()

    def _look_on_until_trouble(self, patience: Backoff) -> bool:
        """Whether it can pass by itself."""
        try:
            self._look_on(patience)
        except (Stopped, TimeoutError):
            pass  # nobody wants it any more, or did not when the connection was not open yet
        except WorkflowError as error:
            self._set_trouble(error)
            log.info("%s: %s", self.instance.name, error)
            return error.is_transient
        return True

    def _look_on(self, patience: Backoff) -> None:
        """As long as the link holds. Raises: what the session raises."""
        key, wanted_for_s = key_of_instance(self.instance), self.wanted_for_s
        leaving = self._leaving = CancelToken()
        if not self.is_wanted:
            return
        timeout_s = None if wanted_for_s == inf else wanted_for_s
        with self._context.sessions.lease(key, stop=leaving, timeout_s=timeout_s) as session:
            session.ping(again=True)
            self._drop_what_was_given_up(session)
            self._is_in_trouble = False
            self._set(connected_since=self._state.connected_since or now(), trouble=None, offered_key=None)
            while self.is_wanted and session.is_alive and not self._is_in_trouble:
                self._look(session)
                patience.reset()
                self._wait(LOOK_S)

    def _look(self, session: ComfyUISession) -> None:
        remaining = session.client.probe()
        self._heed_restart(session)
        prompts = self._prompts(session.queue()) if remaining else Prompts()
        self._ask_system(session)
        self._account(prompts.is_busy)
        idle_since = None if prompts.is_busy else self._state.idle_since or now()
        self._set(
            reachability=Reachability.READY,
            looked_at=now(),
            prompts=prompts,
            idle_since=idle_since,
            round_trip_s=session.connection.round_trip_s,
            host_key_fingerprint=session.connection.host_key_fingerprint,
        )
        self._warn_if_idle()

    def _heed_restart(self, session: ComfyUISession) -> None:
        """After trouble and behind a new websocket there may be another ComfyUI, which has nothing loaded:
        the last boot marker that is known tells."""
        socket = session.feed.times_connected
        marker = self._marker = self._marker or session.known_marker
        if socket != self._socket and not answer_or(lambda: session.is_same_boot(marker), False):
            self._marker = session.known_marker
            self.memory_emptied()
        self._socket = socket

    def _prompts(self, queue: QueueSnapshot) -> Prompts:
        ours = {
            prompt_id: correlation.partition("/")[0]
            for correlation, prompt_id in queue.correlations.items()
            if self._context.is_given_up(correlation) is not None
        }
        there = (*queue.running, *queue.pending)
        return Prompts(
            running=queue.running,
            pending=queue.pending,
            ours=tuple(ours[prompt_id] for prompt_id in there if prompt_id in ours),
            others=sum(prompt_id not in ours for prompt_id in there),
        )

    def _drop_what_was_given_up(self, session: ComfyUISession) -> None:
        """A run that went elsewhere when this instance was away must not run here as well."""
        if not session.client.probe():
            return
        queue = session.client.queue()
        for correlation, prompt_id in queue.correlations.items():
            if self._context.is_given_up(correlation):
                log.info("%s: dropping the prompt %s, which was given up", self.instance.name, prompt_id)
                session.client.delete_pending(prompt_id)
                if prompt_id in queue.running:
                    session.client.interrupt(prompt_id)

    def _ask_system(self, session: ComfyUISession) -> None:
        if time.monotonic() - self._system_asked_s < SYSTEM_LOOK_S:
            return
        self._system_asked_s = time.monotonic()
        system = session.client.system()
        self._set(comfyui_version=system.comfyui_version, devices=system.devices)

    def _account(self, is_busy: bool) -> None:
        """The time since the last look counts as what was seen then."""
        at_s = time.monotonic()
        if self._looked_at_s is not None:
            spent_s = at_s - self._looked_at_s
            self._context.ledger.add(
                self.instance.id, connected_s=spent_s, busy_s=spent_s if self._was_busy else 0.0
            )
        self._looked_at_s, self._was_busy = at_s, is_busy

    def _leave_off(self) -> None:
        self._looked_at_s, self._system_asked_s, self._socket = None, -inf, None
        self._set(connected_since=None, idle_since=None, prompts=None)

    def _warn_if_idle(self) -> None:
        idle_s = self._state.idle_s(now())
        is_long = idle_s > self._context.options.idle_warning_s > 0
        if is_long and not self._has_warned:
            log.warning("%s has had nothing to do for %.0f min", self.instance.name, idle_s / 60)
        self._has_warned = is_long

    def _wait(self, seconds: float) -> None:
        self._woken.wait(seconds)
        self._woken.clear()

    def _set_trouble(self, error: Exception) -> None:
        offered = error.offered if isinstance(error, HostKeyRefused) else None
        self._set(reachability=Reachability.UNREACHABLE, trouble=str(error), offered_key=offered)

    def _set(self, **changes: Any) -> None:
        with self._lock:
            before = self._state
            if changes.get("reachability") is Reachability.READY and self._is_in_trouble:
                changes = {**changes, "reachability": before.reachability}
            self._state = replace(before, **changes)
        if before.is_ready != self._state.is_ready:
            self._context.tell()
