"""The executor of a fleet: runs wait here, and each gets its turn where and when there is a place for it.

A run that waits costs no thread and no connection, and can still be reordered, cancelled, or given to another
instance. One thread decides; whoever has a turn is carried out in a thread of its own.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from comfyui_workflow.concurrency import MOST_AT_ONCE, parallel_map
from comfyui_workflow.errors import DataTaken, RunNotFound, Stopped, StoreError
from comfyui_workflow.instances.model import Instance, placement_of
from comfyui_workflow.runs.events import Event, PhaseEntered
from comfyui_workflow.runs.model import Phase, Placement, Run
from comfyui_workflow.runs.target import tag_of
from comfyui_workflow.scheduling.capacity import Directory, Floor, States
from comfyui_workflow.scheduling.executor import Execute, GivesWay, Standing
from comfyui_workflow.scheduling.failover import (
    is_instance_trouble,
    is_refusal,
    may_run_again,
    should_leave,
)
from comfyui_workflow.scheduling.monotonic_clock import SteadyClock
from comfyui_workflow.scheduling.state import Board, Carried
from comfyui_workflow.scheduling.threads import RunThreads
from comfyui_workflow.stores.journal import RunJournal, now
from comfyui_workflow.workflows.model_files import models_named

log = logging.getLogger(__name__)

TICK_S = 1.0
"""How often it looks at the clock: for runs that may not start yet, and for who waits too long."""
MOST_ENDINGS = MOST_AT_ONCE
"""That are saved before it looks who else may have a turn: ten thousand runs may be cancelled at once."""
_FOR_A_PLACE = "for a place on the instance"
_FOR_FILES = "until the files of another run are fetched, since both may save under the same name"
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
        self._clock = SteadyClock()
        self._board = Board(
            self._floor,
            journal.get,
            self._last_start,
            timedelta(seconds=options.any_patience_s),
            self._clock.of,
        )
        self._changed = threading.Condition()
        """Guards the board. Held for no network and no disk."""
        self._is_stale = False
        self._threads = RunThreads(self._carry_out)
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def start(self, run_id: str) -> None:
        with self._changed:
            if self._threads.are_stopping:
                return
            self._begin_deciding()
            self._board.put(self._journal.get(run_id), self._clock())
            self._wake()

    def look_again(self, run_id: str) -> None:
        with self._changed:
            self._begin_deciding()
            self._board.change(self._journal.get(run_id), self._clock())
            carried = self._board.carried.get(run_id)
            self._wake()
        if carried is not None:
            carried.wake()

    def cancel_waiting(self, run_ids: Sequence[str], reason: str | None) -> list[str]:
        with self._changed:
            waiting = self._board.cancel_waiting(run_ids, reason)
            self._wake()
        return waiting

    def standing(self, run_id: str) -> Standing | None:
        with self._changed:
            return self._board.standing(run_id, self._clock())

    def stop(self, timeout_s: float) -> bool:
        with self._changed:
            self._threads.stop(0)
            carried = list(self._board.carried.values())
            self._wake()
        for each in carried:
            each.wake()
        if self._thread.ident:
            self._thread.join(timeout_s)
        return self._threads.stop(timeout_s)

    def wake(self) -> None:
        """The directory or the state of an instance has changed."""
        with self._changed:
            self._wake()

    def _begin_deciding(self) -> None:
        if not self._thread.ident and not self._threads.are_stopping:
            self._thread.start()

    def _wake(self) -> None:
        self._is_stale = True
        self._changed.notify_all()

    def _last_start(self, batch_id: str) -> datetime | None:
        """Never in the future: the clock may have been set back since."""
        last = self._journal.last_start(batch_id)
        return None if last is None else min(self._clock.of(last), self._clock())

    # in the dispatcher's own thread

    def _run(self) -> None:
        due: datetime | None = None
        while not self._threads.are_stopping:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_stale or self._threads.are_stopping, self._rest_s(due)
                )
                self._is_stale = False
            try:
                due = self._decide()
            except Exception:  # a run that cannot be decided on must not keep all others waiting
                log.exception("a bug of this server: some runs may wait too long")

    def _decide(self) -> datetime | None:
        """When there is something to decide again, if that is known."""
        self._directory.all()  # so that what a person wrote into its file is noticed
        with self._changed:
            at = self._clock()
            self._board.decide(at)
            due = self._board.next_due(at)
            begun, self._board.begun = self._board.begun, []
            endings = self._board.endings[:MOST_ENDINGS]
            del self._board.endings[:MOST_ENDINGS]
            wanted = self._board.wanted_instances()
            self._changed.notify_all()  # those who should give way
        for instance in wanted:
            self._watches.want(instance)
        for run_id in begun:
            self._threads.start(run_id)
        parallel_map(lambda each: self._end(*each), endings)  # their flushes are one
        return self._clock() if len(endings) == MOST_ENDINGS else due

    def _rest_s(self, due: datetime | None) -> float:
        return TICK_S if due is None else min(TICK_S, max(0.0, (due - self._clock()).total_seconds()))

    def _end(self, run_id: str, ending: Event) -> None:
        try:
            self._journal.record(run_id, ending)
        except DataTaken:
            log.info("%s is left to another server", run_id)
        except RunNotFound:
            log.warning("%s ended and is not there any more", run_id)
        except StoreError as error:
            log.error("%s ended, but that cannot be saved: %s", run_id, error)
            with self._changed:
                self._board.endings.append((run_id, ending))

    # in the thread of a run

    def _carry_out(self, run_id: str, should_stop: Callable[[], bool]) -> None:
        with self._changed:
            carried = self._board.carried[run_id]
        try:
            self._execute(run_id, _Turn(dispatcher=self, carried=carried, should_stop=should_stop))
        finally:
            self._take_back(run_id)

    def _take_back(self, run_id: str) -> None:
        """The run is looked at under the lock: it may be taken up again just now."""
        with self._changed:
            self._board.take_back(self._journal.get(run_id), self._clock())
            self._wake()

    def placement(self, carried: Carried, run: Run) -> Placement | None:
        """An address that was mended in the directory is the new way to the same instance."""
        instance = self._directory.get(carried.instance_id) if carried.instance_id else None
        return run.placement if instance is None else placement_of(run.request, instance, carried.reason)

    def is_instance_gone(self, run: Run) -> bool:
        return run.placement is not None and self._directory.get(run.placement.instance_id) is None

    @contextmanager
    def place(
        self, carried: Carried, should_abort: Callable[[], bool], may_overwrite: bool
    ) -> Iterator[None]:
        carried.may_overwrite = may_overwrite
        try:
            self._wait_for_place(carried, should_abort)
            yield
            self._note_loaded(carried)
        finally:
            with self._changed:
                self._floor.seats_of(carried.key).stop_asking(carried.run_id)
                self._changed.notify_all()  # the next one may submit

    def _wait_for_place(self, carried: Carried, should_abort: Callable[[], bool]) -> None:
        if not self._ask_for_place(carried):
            with self._changed:
                is_held = self._floor.seats_of(carried.key).is_held(carried.run_id)
            message = f"Everything is ready: waiting {_FOR_FILES if is_held else _FOR_A_PLACE}"
            self._journal.record(carried.run_id, PhaseEntered(phase=Phase.WAITING, message=message))
            self._wait_until_given(carried, should_abort)

    def _note_loaded(self, carried: Carried) -> None:
        """Its prompt is there: the last of ours, by the graph that was submitted."""
        models = models_named(self._journal.get(carried.run_id).graph)
        with self._changed:
            seats = self._floor.seats_of(carried.key)
            seats.models, seats.models_at = models, now()
            self._wake()

    def _wait_until_given(self, carried: Carried, should_abort: Callable[[], bool]) -> None:
        with self._changed:
            while not self._ask_for_place(carried):
                if carried.gives_way is not None:
                    raise GivesWay(carried.gives_way)
                if should_abort():
                    raise Stopped("stopped while waiting for a place")
                due_in_s = self._board.start_is_due_in_s(carried, self._clock())
                self._changed.wait(min(HEED_S, due_in_s or HEED_S))

    def _ask_for_place(self, carried: Carried) -> bool:
        """Who comes too soon after another run of its batch does not ask, and keeps nobody waiting."""
        with self._changed:
            if self._board.start_is_due_in_s(carried, self._clock()):
                return False
            seats = self._floor.seats_of(carried.key)
            is_given = seats.ask(
                carried.run_id,
                self._options.prompts_per_instance,
                time.monotonic(),
                may_overwrite=carried.may_overwrite,
            )
            if is_given:
                self._board.note_start(carried, self._clock())
            return is_given

    def leave_place(self, carried: Carried) -> None:
        with self._changed:
            self._floor.seats_of(carried.key).leave_place(carried.run_id)
            self._wake()

    def reason_to_leave(
        self, carried: Carried, run: Run, error: Exception, failing_for_s: float
    ) -> str | None:
        if isinstance(error, GivesWay):
            return str(error)
        here = run.placement
        if here is None:
            return None
        if is_instance_trouble(error):
            self._watches.report(here.instance_id, error)
        if not self._should_leave(run, here, error, failing_for_s):
            return None
        with self._changed:
            if is_refusal(error):
                self._board.refuse(run.run_id, here.instance_id, str(error))
            else:
                carried.needs_pause = True
        return f"{here.name}: {str(error).rstrip('.')}; another instance is chosen"

    def _should_leave(self, run: Run, here: Placement, error: Exception, failing_for_s: float) -> bool:
        tag = tag_of(run.request.target)
        if tag is None or not may_run_again(run, self._options.resubmissions_of_running):
            return False
        for instance in self._floor.meant(tag):  # one of them may have to take it over
            self._watches.want(instance)
        return should_leave(
            run,
            error,
            failing_for_s,
            move_after_s=self._options.move_after_s,
            is_another_ready=any(each.id != here.instance_id for each, _ in self._floor.ready(tag)),
        )


@dataclass(frozen=True, kw_only=True)
class _Turn:
    """`executors.Turn`, of one run."""

    dispatcher: Dispatcher
    carried: Carried
    should_stop: Callable[[], bool]

    def be_woken_by(self, wake: Callable[[], None]) -> None:
        self.carried.wake = wake

    def placement(self, run: Run) -> Placement | None:
        return self.dispatcher.placement(self.carried, run)

    def is_instance_gone(self, run: Run) -> bool:
        return self.dispatcher.is_instance_gone(run)

    def place(
        self, should_abort: Callable[[], bool], *, may_overwrite: bool = False
    ) -> AbstractContextManager[None]:
        return self.dispatcher.place(self.carried, should_abort, may_overwrite)

    def leave_place(self) -> None:
        self.dispatcher.leave_place(self.carried)

    def reason_to_leave(self, run: Run, error: Exception, failing_for_s: float) -> str | None:
        return self.dispatcher.reason_to_leave(self.carried, run, error, failing_for_s)
