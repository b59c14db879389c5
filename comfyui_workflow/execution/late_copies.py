"""Removes copies of prompts that arrive after their prompt has ended or was given up.

How it works. If the response to a submission is lost, the prompt is sent again under the same id. The network
may deliver the first copy minutes later, and ComfyUI would execute it again. So the queue of the instance is
polled for some minutes after the end of such a prompt. A copy that waits in the queue is deleted; a copy that
executes is interrupted. Other prompts are not touched.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import NamedTuple

from comfyui_workflow.comfyui.duplicate_prompts import stop
from comfyui_workflow.comfyui.queue import QueueSnapshot
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import DataTaken, RunNotFound, StoreError, WorkflowError
from comfyui_workflow.runs.events import ExecutedTwice
from comfyui_workflow.runs.model import Run
from comfyui_workflow.sessions.leases import lease_comfyui
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey, key_of
from comfyui_workflow.ssh.pool import Pool
from comfyui_workflow.stores.journal import RunJournal

log = logging.getLogger(__name__)

POLL_S = 2.0
RETRY_AFTER_S = 10.0
"""Wait after the instance could not be reached."""
EXECUTED_TWICE = (
    "ComfyUI executed it twice: the network delivered a copy of the prompt after it was sent again. {}"
)
STOPPED, RAN = "The copy was stopped", "The copy ran to its end"


class LateCopyWatcher:
    """Watches for late copies, with one thread for each instance where a copy may arrive. Thread-safe."""

    def __init__(
        self, sessions: Pool[InstanceKey, ComfyUISession], journal: RunJournal, watch_s: float
    ) -> None:
        self._sessions = sessions
        self._journal = journal
        self._watch_s = watch_s
        self._lock = threading.Lock()
        self._expected: dict[_Place, dict[str, _ExpectedCopies]] = {}
        self._closing = CancelToken()

    def expect(self, run: Run) -> None:
        """From now on, prompts of all submissions of this run so far are unwanted at its instance. Returns at
        once."""
        if not self._watch_s or not run.submissions:
            return
        key = _Place(key_of(run), run.port_of_prompt)
        with self._lock:
            is_new = key not in self._expected
            self._expected.setdefault(key, {})[run.run_id] = _ExpectedCopies(run, self._watch_s)
            if is_new and not self._closing.is_set:
                name = f"late copies {key.label}"[:60]
                threading.Thread(target=self._watch, args=(key,), name=name, daemon=True).start()

    def stop(self) -> None:
        self._closing.cancel("the server is stopping")

    def _watch(self, key: "_Place") -> None:
        while self._has_any(key):
            try:
                lease = partial(self._sessions.lease, stop=self._closing)
                with lease_comfyui(lease, key.instance, key.port) as session:
                    while session.is_alive and self._has_any(key):
                        self._poll(session, key)
                        self._closing.wait(POLL_S)
            except DataTaken:
                return
            except WorkflowError as error:
                log.info("late copies on %s are not checked now: %s", key.label, error)
                self._closing.wait(RETRY_AFTER_S)

    def _has_any(self, key: "_Place") -> bool:
        """Removes expired entries. Returns False, and forgets the instance, if none is left."""
        with self._lock:
            left = {name: each for name, each in self._expected.get(key, {}).items() if not each.is_over}
            self._expected[key] = left
            if self._closing.is_set or not left:
                del self._expected[key]
                return False
            return True

    def _poll(self, session: ComfyUISession, key: "_Place") -> None:
        with self._lock:
            expected = dict(self._expected.get(key, {}))
        seen = session.queue()
        if any(mark.run_id in expected for mark in seen.marks):
            self._drop(session, session.client.queue(), expected)
        for each in expected.values():
            if each.has_executed_again(session):
                self._record_executed_twice(each, RAN)

    def _drop(
        self, session: ComfyUISession, fresh: QueueSnapshot, expected: "dict[str, _ExpectedCopies]"
    ) -> None:
        for mark in {mark.prompt_id: mark for mark in fresh.marks}.values():
            each = expected.get(mark.run_id)
            if each is None or not each.is_unwanted(mark.submission, self._journal.get(mark.run_id)):
                continue
            log.warning("%s: a late copy of its prompt %s is dropped", mark.run_id, mark.prompt_id)
            stop(session.client, fresh, mark.prompt_id)
            if mark.prompt_id in fresh.running:
                self._record_executed_twice(each, STOPPED)

    def _record_executed_twice(self, each: "_ExpectedCopies", what_happened: str) -> None:
        if each.is_recorded:
            return
        each.is_recorded = True
        try:
            self._journal.record(each.run_id, ExecutedTwice(message=EXECUTED_TWICE.format(what_happened)))
        except (RunNotFound, StoreError) as error:
            log.warning("%s was executed twice, which cannot be saved: %s", each.run_id, error)


class _Place(NamedTuple):
    """A ComfyUI: its instance, and its port there."""

    instance: InstanceKey
    port: int | None

    @property
    def label(self) -> str:
        return self.instance.address.label


class _ExpectedCopies:
    """Copies of one run's prompts that may still arrive."""

    def __init__(self, run: Run, watch_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.run_id = run.run_id
        self.is_recorded = False
        self._submissions = run.submissions
        self._prompt_id = run.prompt_id if run.is_accepted else None
        self._began_at: datetime | None = None
        self._until_s = clock() + watch_s
        self._clock = clock

    @property
    def is_over(self) -> bool:
        return self._clock() >= self._until_s

    def is_unwanted(self, submission: int | None, run: Run) -> bool:
        """True for a submission that was over when `expect` was called; never for a later submission."""
        if submission is None or submission > self._submissions:
            return False
        is_ended = run.is_finished or run.are_outputs_known
        return is_ended or run.prompt_id is None or run.submissions != submission

    def has_executed_again(self, session: ComfyUISession) -> bool:
        """True if the history shows another execution of the prompt than at the first check."""
        entry = None if self._prompt_id is None else session.client.history(self._prompt_id)
        if entry is None or entry.execution_began_at is None:
            return False
        before, self._began_at = self._began_at, entry.execution_began_at
        return before is not None and before != self._began_at
