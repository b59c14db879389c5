"""Prepares each ComfyUI that has just started, once, before it takes runs: `Preparations`.

How it works. A `Step` is repeatable: a manifest that is applied, a prompt that warms up. The first that comes
to a ComfyUI (its monitor, or a run) starts a thread that carries the steps out; all others wait for it. A
boot marker tells later whether it is still the same ComfyUI, so an established session costs no request. A
step that fails is told and not tried again until ComfyUI restarts: the instance takes runs nevertheless.

A `SubmissionGate` closes an instance for new prompts while its ComfyUI is restarted on purpose.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import Stopped, WorkflowError
from comfyui_workflow.instances.state import Preparation, PreparationStatus
from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.retry import Backoff
from comfyui_workflow.sessions.leases import Sessions, lease_comfyui
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey

PATIENCE_S = 120.0
"""A step that comes no further for so long has failed."""
CHECK_EVERY_S = 1.0

log = logging.getLogger(__name__)

Say = Callable[[str], None]


class Step(Protocol):
    """`name` begins the sentence of a failure: `The warm-up`."""

    @property
    def name(self) -> str: ...

    def carry_out(self, key: InstanceKey, session: ComfyUISession, stop: CancelToken, say: Say) -> None:
        """Returns when the instance is prepared. It may be repeated after a cut at any point. Raises:
        WorkflowError."""


@dataclass
class _Boot:
    """One start of a ComfyUI."""

    preparation: Preparation
    marker: str | None = None
    session: ComfyUISession | None = None
    """The last session that is known to lead to this start, when its websocket had been connected so many
    times."""
    connection: int = -1


class SubmissionGate:
    """Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._closed: Counter[tuple[str, int]] = Counter()
        self._submitting: Counter[tuple[str, int]] = Counter()

    @contextmanager
    def submitting(self, session: ComfyUISession, stop: CancelToken) -> Iterator[None]:
        """Enters when prompts may be submitted to the ComfyUI of the session. Raises: Stopped."""
        at = _place(session)
        with stop.notifying(self._changed), self._changed:
            self._changed.wait_for(lambda: not self._closed[at] or stop.is_set)
            stop.check()
            self._submitting[at] += 1
        try:
            yield
        finally:
            self._leave(self._submitting, at)

    @contextmanager
    def alone(self, session: ComfyUISession, stop: CancelToken) -> Iterator[None]:
        """Within the block, no run of this server submits a prompt to the ComfyUI of the session. Enters when
        no submission is under way. Raises: Stopped."""
        at = _place(session)
        with stop.notifying(self._changed), self._changed:
            self._closed[at] += 1
            self._changed.wait_for(lambda: not self._submitting[at] or stop.is_set)
        try:
            stop.check()
            yield
        finally:
            self._leave(self._closed, at)

    def _leave(self, counts: Counter[tuple[str, int]], at: tuple[str, int]) -> None:
        with self._changed:
            counts[at] -= 1
            self._changed.notify_all()


class Preparations:
    """Thread-safe. Without steps, every instance is prepared."""

    def __init__(
        self, sessions: Sessions, steps: Sequence[Step] = (), gate: SubmissionGate | None = None
    ) -> None:
        self.gate = gate or SubmissionGate()
        self._sessions = sessions
        self._steps = tuple(steps)
        self._stop = CancelToken()
        self._changed = threading.Condition()
        self._boots: dict[tuple[str, int], _Boot] = {}

    def look(self, key: InstanceKey, session: ComfyUISession) -> Preparation | None:
        """Starts the preparation of a ComfyUI that has just started, and returns its state without waiting;
        None without steps. Raises: the errors of ComfyUI."""
        if not self._steps:
            return None
        at = _place(session)
        with self._changed:
            boot = self._boots.get(at)
            if boot is not None and (_is_running(boot) or _is_known(boot, session)):
                return boot.preparation
        if boot is not None and boot.marker is not None and session.is_same_boot(boot.marker):
            with self._changed:
                _note_session(boot, session)
            return boot.preparation
        return self._start(at, boot, key)

    def wait(self, key: InstanceKey, session: ComfyUISession, stop: CancelToken, say: Say) -> None:
        """Returns when the ComfyUI of the session is prepared, or that has failed. Raises: Stopped; the
        errors of ComfyUI."""
        said = None
        while (found := self.look(key, session)) is not None and found.status is PreparationStatus.RUNNING:
            if found.message != said:
                said = found.message
                say(found.message)
            with stop.notifying(self._changed), self._changed:
                self._changed.wait(CHECK_EVERY_S)
            stop.check()

    def stop(self) -> None:
        self._stop.cancel("the server stops")

    def _start(self, at: tuple[str, int], before: _Boot | None, key: InstanceKey) -> Preparation:
        """Starts the thread, unless another caller has done that meanwhile."""
        with self._changed:
            boot = self._boots.get(at)
            if boot is not before and boot is not None:
                return boot.preparation
            beginning = Preparation(
                status=PreparationStatus.RUNNING, message="The instance is being prepared"
            )
            boot = self._boots[at] = _Boot(preparation=beginning)
        threading.Thread(
            target=self._prepare, args=(boot, key), name=f"prepare {at[0]}"[:60], daemon=True
        ).start()
        return beginning

    def _prepare(self, boot: _Boot, key: InstanceKey) -> None:
        failures = list[str]()
        try:
            for step in self._steps:
                failure = self._carry_out(step, boot, key)
                failures += [failure] if failure else []
        except Stopped:
            pass  # the server stops
        except Exception:  # the instance must take runs, whatever happened
            log.exception("a bug of this server: an instance is not prepared")
            failures.append("The instance was not prepared: internal error")
        status = PreparationStatus.FAILED if failures else PreparationStatus.DONE
        message = "; ".join(failures) or "The instance is prepared"
        with self._changed:
            boot.preparation = Preparation(status=status, message=message)
            self._changed.notify_all()

    def _carry_out(self, step: Step, boot: _Boot, key: InstanceKey) -> str | None:
        """Repeats a step until it has succeeded. Returns the sentence of its failure. Raises: Stopped."""
        backoff = Backoff()

        def say(message: str) -> None:
            with self._changed:
                boot.preparation = Preparation(status=PreparationStatus.RUNNING, message=message)
                self._changed.notify_all()

        while True:
            try:
                with lease_comfyui(partial(self._sessions.lease, stop=self._stop), key) as session:
                    # before the step: if ComfyUI restarts meanwhile, the next look finds that out
                    boot.marker = session.boot_marker()
                    _note_session(boot, session)
                    step.carry_out(key, session, self._stop, say)
                return None
            except Stopped:
                raise
            except WorkflowError as error:
                if not error.is_transient or backoff.failing_for_s() > PATIENCE_S:
                    log.warning("%s: %s failed: %s", key.address.label, step.name, error)
                    return f"{step.name} failed: {shown(error)}"
            self._stop.wait(backoff.next_wait_s())
            self._stop.check()


def _place(session: ComfyUISession) -> tuple[str, int]:
    return session.connection.address.label, session.comfyui_port


def _is_running(boot: _Boot) -> bool:
    return boot.preparation.status is PreparationStatus.RUNNING


def _is_known(boot: _Boot, session: ComfyUISession) -> bool:
    """True if nothing has happened since that a restart of ComfyUI would cause."""
    feed = session.feed
    if boot.session is not session:
        return False
    is_unbroken = boot.connection == feed.times_connected and feed.wait_connected(0)
    return is_unbroken or boot.marker is None  # without a marker, nothing else tells


def _note_session(boot: _Boot, session: ComfyUISession) -> None:
    boot.session, boot.connection = session, session.feed.times_connected
