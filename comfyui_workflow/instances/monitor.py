"""Monitor of one instance: keeps its session open and polls its state.

How it works: each monitored instance has its own thread, so that a slow instance does not delay another. An
instance is wanted for a limited time after each `acquire`, and without limit from `connect` to `disconnect`.
While it is wanted, its session is kept open and ComfyUI is polled every POLL_S seconds. The result is a
frozen `InstanceState`, which any thread may read without waiting. After an error the monitor reconnects with
backoff; after an error that cannot pass by itself it waits PERMANENT_ERROR_WAIT_S.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any

from comfyui_workflow.comfyui.client import answer_or_default
from comfyui_workflow.comfyui.queue import QueueSnapshot
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ComfyUINotFound, HostKeyRefused, Stopped, WorkflowError
from comfyui_workflow.instances.model import Instance, key_of_instance
from comfyui_workflow.instances.state import (
    InstanceState,
    Preparation,
    PreparationStatus,
    Prompts,
    Reachability,
)
from comfyui_workflow.instances.usage import UsageLedger
from comfyui_workflow.retry import Backoff
from comfyui_workflow.sessions.leases import lease_comfyui
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey
from comfyui_workflow.ssh.pool import Pool
from comfyui_workflow.stores.journal import now

log = logging.getLogger(__name__)

POLL_S = 2.0
PERMANENT_ERROR_WAIT_S = 300.0
"""Wait after a permanent error, such as a refused key or host key: SSH servers ban clients that retry
often."""
SYSTEM_POLL_S = 10.0
"""Interval between requests for the GPU memory."""


@dataclass(frozen=True, kw_only=True)
class MonitorOptions:
    wanted_for_s: float = 300.0
    """Time that an instance stays connected after an `acquire`."""
    idle_warning_s: float = 900.0


@dataclass(frozen=True, kw_only=True)
class MonitorContext:
    """Dependencies that all monitors share."""

    sessions: Pool[InstanceKey, ComfyUISession]
    ledger: UsageLedger
    options: MonitorOptions
    is_given_up: Callable[[str], bool | None]
    """Takes the correlation of a prompt. True if our run has given the prompt up, False if the run still
    needs it; None if the run is not ours."""
    tell: Callable[[], None]
    """Notifies that an instance became ready or stopped being ready. Called with no lock held."""
    prepare: Callable[[InstanceKey, ComfyUISession], Preparation | None] = lambda _key, _session: None
    """Starts what a ComfyUI that has just started needs, and returns its state without waiting."""


class InstanceMonitor:
    """Monitors one instance. The thread ends when the instance is no longer wanted, and starts again on the
    next `acquire`."""

    def __init__(self, instance: Instance, context: MonitorContext) -> None:
        self.instance = instance
        self._context = context
        self._wanted_until_s = 0.0
        self._state = InstanceState()
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._lease_cancel = CancelToken()
        """Cancels the current wait for a lease."""
        self._is_closed = False
        self._has_error = False
        self._system_polled_s = -inf
        self._accounted_s: float | None = None
        self._was_busy = False
        self._has_warned = False
        self._thread: threading.Thread | None = None
        self._socket_count: int | None = None
        self._marker: str | None = None

    @property
    def state(self) -> InstanceState:
        return self._state

    @property
    def wanted_for_s(self) -> float:
        """Seconds from now that the instance is still wanted; 0 or less if it is not wanted."""
        return 0.0 if self._is_closed else self._wanted_until_s - time.monotonic()

    @property
    def is_wanted(self) -> bool:
        return self.wanted_for_s > 0

    def acquire(self, for_s: float) -> None:
        """Keeps the instance connected for at least that many seconds; starts the thread if needed."""
        with self._lock:
            self._wanted_until_s = max(self._wanted_until_s, time.monotonic() + for_s)
            if self._is_closed or self._thread is not None:
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
        """Ends the monitoring; the thread closes its lease."""
        self._wanted_until_s = 0.0
        self._cancel_waits()

    def _cancel_waits(self) -> None:
        self._lease_cancel.cancel("the instance is no longer needed")
        self._woken.set()

    def wake(self) -> None:
        """Ends the current wait: the instance is polled now."""
        self._woken.set()

    def report(self, error: Exception) -> None:
        """Records an error that a user of the session has seen: not ready until the next successful poll."""
        if self._state.is_ready:
            self._has_error = True
            self._set_error(error)
            self._woken.set()

    def mark_memory_freed(self) -> None:
        """Records that ComfyUI has unloaded its models."""
        self._set(memory_emptied_at=now())

    def close(self) -> None:
        self._is_closed = True
        self._cancel_waits()

    def join(self, timeout_s: float) -> None:
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    def _run(self) -> None:
        backoff = Backoff()
        while True:
            with self._lock:
                if not self.is_wanted:
                    self._thread = None
                    self._state = replace(self._state, reachability=Reachability.UNKNOWN)
                    break
            is_transient = self._monitor_until_error(backoff)
            self._reset_connection_state()
            if self.is_wanted:
                self._wait(backoff.next_wait_s() if is_transient else PERMANENT_ERROR_WAIT_S)
        self._context.tell()

    def _monitor_until_error(self, backoff: Backoff) -> bool:
        """Returns True if the monitor may retry soon, False after a permanent error."""
        try:
            self._monitor(backoff)
        except (Stopped, TimeoutError):
            pass  # the instance is no longer wanted; perhaps since before the connection was open
        except WorkflowError as error:
            self._set_error(error)
            log.info("%s: %s", self.instance.name, error)
            return error.is_transient or isinstance(error, ComfyUINotFound)  # no SSH server bans for that
        return True

    def _monitor(self, backoff: Backoff) -> None:
        """Polls the instance until the connection breaks or the instance is no longer wanted.
        Raises: what the session raises."""
        key, wanted_for_s = key_of_instance(self.instance), self.wanted_for_s
        lease_cancel = self._lease_cancel = CancelToken()
        if not self.is_wanted:
            return
        timeout_s = None if wanted_for_s == inf else wanted_for_s
        lease = partial(self._context.sessions.lease, stop=lease_cancel, timeout_s=timeout_s)
        with lease_comfyui(lease, key, again=True) as session:
            self._drop_given_up_prompts(session)
            self._has_error = False
            self._set(connected_since=self._state.connected_since or now(), trouble=None, offered_key=None)
            while self.is_wanted and session.is_alive and not self._has_error:
                self._poll(session)
                backoff.reset()
                self._wait(POLL_S)

    def _poll(self, session: ComfyUISession) -> None:
        unfinished = session.client.probe()
        self._detect_restart(session)
        prompts = self._prompts(session.queue()) if unfinished else Prompts()
        self._poll_system(session)
        self._account(prompts.is_busy)
        idle_since = None if prompts.is_busy else self._state.idle_since or now()
        preparation = self._context.prepare(key_of_instance(self.instance), session)
        is_prepared = preparation is None or preparation.status is not PreparationStatus.RUNNING
        self._set(
            reachability=Reachability.READY if is_prepared else Reachability.CONNECTING,
            preparation=preparation,
            looked_at=now(),
            prompts=prompts,
            idle_since=idle_since,
            round_trip_s=session.connection.round_trip_s,
            comfyui_port=session.comfyui_port,
            host_key_fingerprint=session.connection.host_key_fingerprint,
        )
        self._warn_if_idle()

    def _detect_restart(self, session: ComfyUISession) -> None:
        """Records an empty memory if ComfyUI was restarted. Checked after each new websocket: the last known
        boot marker tells whether it is still the same process."""
        socket_count = session.feed.times_connected
        marker = self._marker = self._marker or session.known_marker
        if socket_count != self._socket_count and not answer_or_default(
            lambda: session.is_same_boot(marker), False
        ):
            self._marker = session.known_marker
            self.mark_memory_freed()
        self._socket_count = socket_count

    def _prompts(self, queue: QueueSnapshot) -> Prompts:
        ours = {
            prompt_id: correlation.partition("/")[0]
            for correlation, prompt_id in queue.correlations.items()
            if self._context.is_given_up(correlation) is not None
        }
        queued = (*queue.running, *queue.pending)
        return Prompts(
            running=queue.running,
            pending=queue.pending,
            ours=tuple(ours[prompt_id] for prompt_id in queued if prompt_id in ours),
            others=sum(prompt_id not in ours for prompt_id in queued),
        )

    def _drop_given_up_prompts(self, session: ComfyUISession) -> None:
        """Cancels prompts whose run was moved to another instance while this one was unreachable: a run must
        not execute twice."""
        if not session.client.probe():
            return
        queue = session.client.queue()
        for correlation, prompt_id in queue.correlations.items():
            if self._context.is_given_up(correlation):
                log.info("%s: dropping the prompt %s, which was given up", self.instance.name, prompt_id)
                session.client.delete_pending(prompt_id)
                if prompt_id in queue.running:
                    session.client.interrupt(prompt_id)

    def _poll_system(self, session: ComfyUISession) -> None:
        if time.monotonic() - self._system_polled_s < SYSTEM_POLL_S:
            return
        self._system_polled_s = time.monotonic()
        system = session.client.system()
        self._set(comfyui_version=system.comfyui_version, devices=system.devices)

    def _account(self, is_busy: bool) -> None:
        """Adds the time since the last poll to the ledger, as busy if the last poll found a prompt."""
        at_s = time.monotonic()
        if self._accounted_s is not None:
            spent_s = at_s - self._accounted_s
            self._context.ledger.add(
                self.instance.id, connected_s=spent_s, busy_s=spent_s if self._was_busy else 0.0
            )
        self._accounted_s, self._was_busy = at_s, is_busy

    def _reset_connection_state(self) -> None:
        self._accounted_s, self._system_polled_s, self._socket_count = None, -inf, None
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

    def _set_error(self, error: Exception) -> None:
        offered = error.offered if isinstance(error, HostKeyRefused) else None
        self._set(reachability=Reachability.UNREACHABLE, trouble=str(error), offered_key=offered)

    def _set(self, **changes: Any) -> None:
        """Replaces fields of the state. A state with an unresolved error does not become ready."""
        with self._lock:
            before = self._state
            if changes.get("reachability") is Reachability.READY and self._has_error:
                changes = {**changes, "reachability": before.reachability}
            self._state = replace(before, **changes)
        if before.is_ready != self._state.is_ready:
            self._context.tell()
