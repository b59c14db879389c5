"""The executor of a fleet: runs wait here, and each gets its turn where and when there is a place for it.

A run that waits costs no thread and no connection, and can still be reordered, cancelled, or given to another
instance. One thread decides; whoever has a turn is carried out in a thread of its own.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from comfyui_workflow.errors import InvalidAddress, RunNotFound, Stopped, StoreError
from comfyui_workflow.executors import Execute, GivesWay, Standing
from comfyui_workflow.executors.threads import RunThreads
from comfyui_workflow.fleet.choosing import choose
from comfyui_workflow.fleet.floor import Directory, Floor, States, usable_key
from comfyui_workflow.fleet.instance import Instance, placement_of, tag_wanted
from comfyui_workflow.fleet.later import LaterRuns
from comfyui_workflow.fleet.moving import is_instance_trouble, is_refusal, may_run_again, should_leave
from comfyui_workflow.fleet.waiting import AnyOf, At, Named, Target, Waiting, WaitingRuns
from comfyui_workflow.journal import RunJournal, now
from comfyui_workflow.link import InstanceKey, key_of
from comfyui_workflow.patience import Patience
from comfyui_workflow.runs.events import Event, PhaseEntered, RunCancelled, RunFailed
from comfyui_workflow.runs.model import Phase, Placement, Run
from comfyui_workflow.workflows.models import models_named

log = logging.getLogger(__name__)

TICK_S = 1.0
"""How often it looks at the clock: for runs that may not start yet, and for who waits too long."""
HEED_S = 0.5
"""How often a run that waits for its place looks whether it was cancelled."""


class Watches(States, Protocol):
    def want(self, instance: Instance) -> None:
        """It is looked at from now on, for a while."""

    def report(self, instance_id: str, error: Exception) -> None:
        """A run has met this trouble there."""


@dataclass(frozen=True, kw_only=True)
class DispatchOptions:
    prompts_per_instance: int = 2
    on_the_way_per_instance: int = 1
    move_after_s: float = 120.0
    any_patience_s: float = 86_400.0
    resubmissions_of_running: int = 1


@dataclass(kw_only=True)
class _Turn:
    """One run that is carried out. `executors.Turn`; what it holds is guarded by the dispatcher."""

    dispatcher: "Dispatcher"
    workflow_id: str
    key: InstanceKey
    instance_id: str | None
    reason: str
    should_stop: Callable[[], bool] = lambda: False
    gives_way: str | None = None

    def placement(self, run: Run) -> Placement | None:
        return self.dispatcher.placement(self, run)

    def wait_for_place(self, should_abort: Callable[[], bool]) -> None:
        self.dispatcher.wait_for_place(self, should_abort)

    def leave_place(self) -> None:
        self.dispatcher.leave_place(self)

    def reason_to_leave(self, run: Run, error: Exception, failing_for_s: float) -> str | None:
        return self.dispatcher.reason_to_leave(run, error, failing_for_s)


class Dispatcher:
    """Every method may be called from any thread."""

    def __init__(
        self,
        *,
        journal: RunJournal,
        directory: Directory,
        watches: Watches,
        execute: Execute,
        options: DispatchOptions,
    ) -> None:
        self._journal = journal
        self._directory = directory
        self._watches = watches
        self._execute = execute
        self._options = options
        self._floor = Floor(
            directory=directory,
            states=watches,
            most_prompts=options.prompts_per_instance,
            most_on_the_way=options.on_the_way_per_instance,
        )
        self._threads = RunThreads(self._carry_out)
        self._changed = threading.Condition()
        self._is_stale = False
        self._waiting = WaitingRuns()
        self._later = LaterRuns()
        self._turns: dict[str, _Turn] = {}
        self._refusals: dict[str, dict[str, str]] = {}
        self._pauses: dict[str, Patience] = {}
        self._endings: list[tuple[str, Event]] = []
        self._nobody_since_s: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    # the executor

    def start(self, workflow_id: str) -> None:
        run = self._journal.get(workflow_id)
        with self._changed:
            if self._threads.are_stopping:
                return
            if not self._thread.ident:
                self._thread.start()
            self._queue(run)
            self._wake()

    def look_again(self, workflow_id: str) -> None:
        with self._changed:
            run = self._journal.get(workflow_id)
            waiting = self._waiting.get(workflow_id)
            if (waiting or workflow_id in self._later) and run.is_cancel_requested:
                self._end_waiting(workflow_id, RunCancelled())
            elif waiting:
                self._queue(run)
            self._wake()

    def standing(self, workflow_id: str) -> Standing | None:
        with self._changed:
            waiting = self._waiting.get(workflow_id)
            if waiting is not None:
                return Standing(
                    position=self._floor.position(waiting, self._waiting.ahead_of(waiting)),
                    message=self._floor.why_waiting(waiting, self._refusals.get(workflow_id, {})),
                )
            turn = self._turns.get(workflow_id)
            seats = self._floor.seats_of(turn.key) if turn else None
            if seats and workflow_id in seats.asking:
                return Standing(position=seats.ahead_of(workflow_id), message=None)
            later = self._later.get(workflow_id)
            position = len(self._waiting)
        if later is None:
            return None
        run = self._journal.get(workflow_id)
        is_paused = run.request.not_before is None or run.request.not_before < later
        message = run.message if is_paused else f"To be started at {later:%H:%M:%S} UTC"
        return Standing(position=position, message=message)

    def stop(self, timeout_s: float) -> bool:
        with self._changed:
            self._threads.stop(0)
            self._wake()
        if self._thread.ident:
            self._thread.join(timeout_s)
        return self._threads.stop(timeout_s)

    def wake(self) -> None:
        """The directory or the state of an instance has changed."""
        with self._changed:
            self._wake()

    # the turns

    def placement(self, turn: _Turn, run: Run) -> Placement | None:
        """An address that was mended in the directory is the new way to the same instance."""
        instance = self._directory.get(turn.instance_id) if turn.instance_id else None
        if instance is None:
            return run.placement
        return placement_of(run.request, instance, turn.reason)

    def wait_for_place(self, turn: _Turn, should_abort: Callable[[], bool]) -> None:
        seats = self._floor.seats_of(turn.key)
        most = self._options.prompts_per_instance
        with self._changed:
            is_placed = seats.ask(turn.workflow_id, most)
        if not is_placed:
            self._say_ready(turn.workflow_id)
        with self._changed:
            while not is_placed and not seats.ask(turn.workflow_id, most):
                if turn.gives_way is not None:
                    raise GivesWay(turn.gives_way)
                if should_abort():
                    raise Stopped("stopped while waiting for a place")
                self._changed.wait(HEED_S)
            seats.loaded = models_named(self._journal.get(turn.workflow_id).graph)
            self._wake()

    def leave_place(self, turn: _Turn) -> None:
        with self._changed:
            self._floor.seats_of(turn.key).leave(turn.workflow_id)
            self._wake()

    def reason_to_leave(self, run: Run, error: Exception, failing_for_s: float) -> str | None:
        if isinstance(error, GivesWay):
            return str(error)
        here = run.placement
        if here is None:
            return None
        if is_instance_trouble(error):
            self._watches.report(here.instance_id, error)
        tag = tag_wanted(run.request.ssh_connection)
        if tag is None or not may_run_again(run, self._options.resubmissions_of_running):
            return None
        for instance in self._floor.meant(tag):  # one of them may have to take it over
            self._watches.want(instance)
        leaves = should_leave(
            run,
            error,
            failing_for_s,
            move_after_s=self._options.move_after_s,
            is_another_ready=self._is_another_ready(tag, here.instance_id),
        )
        if leaves and is_refusal(error):
            self._refusals.setdefault(run.workflow_id, {})[here.instance_id] = str(error)
        elif leaves:
            self._pauses.setdefault(run.workflow_id, Patience())
        return f"{here.name}: {str(error).rstrip('.')}; another instance is chosen" if leaves else None

    # deciding, in the dispatcher's own thread

    def _run(self) -> None:
        while not self._threads.are_stopping:
            with self._changed:
                self._changed.wait_for(lambda: self._is_stale or self._threads.are_stopping, TICK_S)
                self._is_stale = False
            try:
                self._decide()
            except Exception:  # a run that cannot be decided on must not keep all others waiting
                log.exception("a bug of this server: some runs may wait too long")

    def _decide(self) -> None:
        with self._changed:
            self._let_in_who_is_due()
            self._want_instances()
            self._admit_who_can()
            self._refuse_who_cannot()
            self._make_way()
            endings, self._endings = self._endings, []
        for workflow_id, ending in endings:
            self._end(workflow_id, ending)

    def _let_in_who_is_due(self) -> None:
        for workflow_id in self._later.take_due(now()):
            self._queue(self._journal.get(workflow_id))

    def _want_instances(self) -> None:
        tags = {head.target.tag for head in self._waiting.heads() if isinstance(head.target, AnyOf)}
        wanted = {each.id: each for tag in tags for each in self._floor.meant(tag)}
        used = (self._directory.get(turn.instance_id) for turn in self._turns.values() if turn.instance_id)
        for instance in (wanted | {each.id: each for each in used if each}).values():
            self._watches.want(instance)

    def _admit_who_can(self) -> None:
        while any(self._admit(head) for head in self._waiting.heads()):
            pass

    def _admit(self, head: Waiting) -> bool:
        match head.target:
            case AnyOf():
                candidates = self._floor.candidates(head.target.tag, head.refused_by)
                if not candidates or self._floor.is_first_look_due(head.target.tag, now()):
                    return False
                choice = choose(candidates, models_named(self._journal.get(head.workflow_id).graph))
                instance, reason = choice.instance, choice.reason
            case Named():
                found = self._directory.get(head.target.instance_id)
                if found is None:
                    gone = RunFailed(code="instance_not_found", message="Its instance was removed")
                    self._end_waiting(head.workflow_id, gone)
                    return True
                instance, reason = found, "the request says so"
            case At():
                return self._floor.has_room(head.target.key) and self._give_turn(head, head.target.key, None)
        key = self._floor.keys_for(Named(instance_id=instance.id))
        if not key or not self._floor.has_room(key[0]):
            return False
        return self._give_turn(head, key[0], instance.id, reason)

    def _give_turn(self, run: Waiting, key: InstanceKey, instance_id: str | None, reason: str = "") -> bool:
        self._waiting.remove(run.workflow_id)
        self._floor.seats_of(key).on_the_way[run.workflow_id] = run.order
        self._begin(run.workflow_id, key, instance_id, reason)
        return True

    def _begin(self, workflow_id: str, key: InstanceKey, instance_id: str | None, reason: str) -> None:
        self._turns[workflow_id] = _Turn(
            dispatcher=self, workflow_id=workflow_id, key=key, instance_id=instance_id, reason=reason
        )
        self._threads.start(workflow_id)

    def _refuse_who_cannot(self) -> None:
        """Every instance that is meant has refused it; or none has been ready for too long."""
        for head in self._waiting.heads():
            if not isinstance(head.target, AnyOf):
                continue
            meant = self._floor.meant(head.target.tag)
            has_nobody = self._has_nobody_for_long(head.target.tag)
            if has_nobody or (meant and {each.id for each in meant} <= head.refused_by):
                for run in self._waiting.row(head):
                    self._end_waiting(run.workflow_id, self._refusal(run, has_nobody))

    def _has_nobody_for_long(self, tag: str) -> bool:
        if any(True for _ in self._floor.ready(tag)):
            self._nobody_since_s.pop(tag, None)
            return False
        since_s = self._nobody_since_s.setdefault(tag, time.monotonic())
        return time.monotonic() - since_s > self._options.any_patience_s

    def _refusal(self, run: Waiting, has_nobody: bool) -> RunFailed:
        reasons = self._refusals.get(run.workflow_id, {})
        if has_nobody:
            return RunFailed(
                code="no_instance", message=f"No instance took it. {self._floor.why_waiting(run, reasons)}"
            )
        named = [(self._directory.get(each), why) for each, why in reasons.items()]
        told = "; ".join(f"{each.name}: {why}" for each, why in named if each)
        return RunFailed(code="invalid_workflow", message=f"No instance can run the workflow. {told}")

    def _make_way(self) -> None:
        """Who is ready and waits for a place may be better off elsewhere, or be overtaken."""
        heads = self._waiting.heads()
        for turn in self._turns.values():
            if turn.workflow_id in self._floor.seats_of(turn.key).asking and turn.gives_way is None:
                turn.gives_way = self._reason_to_give_way(turn, heads)
        self._changed.notify_all()

    def _reason_to_give_way(self, turn: _Turn, heads: list[Waiting]) -> str | None:
        run = self._journal.get(turn.workflow_id)
        if any(
            run.priority < head.priority and turn.key in self._floor.keys_for(head.target) for head in heads
        ):
            return "A run of higher priority goes first"
        tag = tag_wanted(run.request.ssh_connection)
        if tag is None:
            return None
        if all(key != turn.key for _, key in self._floor.ready(tag)):
            return "The instance is away"
        refused_by = frozenset(self._refusals.get(turn.workflow_id, ()))
        is_somebody_idle = any(each.ahead == 0 for each in self._floor.candidates(tag, refused_by))
        return "Another instance has nothing to do" if is_somebody_idle and not heads else None

    def _end(self, workflow_id: str, ending: Event) -> None:
        try:
            self._journal.record(workflow_id, ending)
        except RunNotFound:
            log.warning("%s ended and is not there any more", workflow_id)
        except StoreError as error:
            log.error("%s ended, but that cannot be saved: %s", workflow_id, error)
            with self._changed:
                self._endings.append((workflow_id, ending))

    # under the lock

    def _wake(self) -> None:
        self._is_stale = True
        self._changed.notify_all()

    def _queue(self, run: Run) -> None:
        """Where it belongs: carried on if ComfyUI may have its prompt, later, or among those who wait."""
        if run.workflow_id in self._turns:
            return
        starts_at = run.request.not_before
        try:
            if run.prompt_id is not None or run.are_outputs_known:
                self._carry_on(run)
            elif run.is_cancel_requested:
                self._endings.append((run.workflow_id, RunCancelled()))
            elif starts_at is not None and starts_at > now():
                self._later.add(run.workflow_id, starts_at)
            else:
                self._waiting.add(self._as_waiting(run))
        except InvalidAddress as error:
            failed = RunFailed(code=error.code, message=str(error))
            self._endings.append((run.workflow_id, failed))

    def _carry_on(self, run: Run) -> None:
        here = run.placement
        instance = self._directory.get(here.instance_id) if here else None
        key = (usable_key(instance) if instance else None) or key_of(run)
        if not run.are_outputs_known:
            self._floor.seats_of(key).take_place(run.workflow_id)
        self._begin(run.workflow_id, key, here.instance_id if here else None, here.reason if here else "")

    def _as_waiting(self, run: Run) -> Waiting:
        return Waiting(
            workflow_id=run.workflow_id,
            priority=run.priority,
            target=self._target(run),
            refused_by=frozenset(self._refusals.get(run.workflow_id, ())),
        )

    def _target(self, run: Run) -> Target:
        """Raises: InvalidAddress."""
        tag = tag_wanted(run.request.ssh_connection)
        if tag is not None:
            return AnyOf(tag=tag)
        if run.request.instance_id is not None:
            return Named(instance_id=run.request.instance_id)
        key = key_of(run)
        instance = self._floor.instance_at(key)
        return At(key=key) if instance is None else Named(instance_id=instance.id)

    def _end_waiting(self, workflow_id: str, ending: Event) -> None:
        self._waiting.remove(workflow_id)
        self._later.remove(workflow_id)
        self._refusals.pop(workflow_id, None)
        self._endings.append((workflow_id, ending))

    def _is_another_ready(self, tag: str, instance_id: str) -> bool:
        return any(instance.id != instance_id for instance, _ in self._floor.ready(tag))

    # in the thread of a run

    def _carry_out(self, workflow_id: str, should_stop: Callable[[], bool]) -> None:
        turn = self._turns[workflow_id]
        turn.should_stop = should_stop
        try:
            self._execute(workflow_id, turn)
        finally:
            self._give_back(turn)

    def _give_back(self, turn: _Turn) -> None:
        """A run that is not finished has left its instance, and waits for the next one."""
        run = self._journal.get(turn.workflow_id)
        with self._changed:
            self._floor.seats_of(turn.key).leave(turn.workflow_id)
            del self._turns[turn.workflow_id]
            if run.is_finished:
                self._refusals.pop(turn.workflow_id, None)
                self._pauses.pop(turn.workflow_id, None)
            elif turn.workflow_id in self._pauses:
                self._pause(turn.workflow_id)
            elif not self._threads.are_stopping:
                self._queue(run)
            self._wake()

    def _pause(self, workflow_id: str) -> None:
        """Trouble that meets a run wherever it goes must not send it round in circles."""
        wait = timedelta(seconds=self._pauses[workflow_id].next_wait_s())
        self._later.add(workflow_id, now() + wait)

    def _say_ready(self, workflow_id: str) -> None:
        message = "Everything is ready: waiting for a place on the instance"
        self._journal.record(workflow_id, PhaseEntered(phase=Phase.WAITING, message=message))
