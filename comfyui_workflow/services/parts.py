"""Runs with parts: follows the parts, moves those that fail, and ends or continues the run.

How it works. The record of a run names its parts before they exist, so a part that a crash has lost is made
again. A run and its parts are saved together: a part whose run does not exist was never accepted. Each
change of a part's status is copied into the record of the run; then `_advance` looks at all its parts and
does what follows. It is a function of the records alone, so a restart only calls it again.

A run that waits for its parts is not known to the scheduler. When all have ended, it is completed with their
outputs; or, if their pictures are collected (`distributed.gathering`), it becomes a run as any other, with
the graph that makes the result.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import Protocol

from comfyui_workflow.concurrency import KeyedLocks
from comfyui_workflow.errors import RunConflict, RunNotFound, StoreError, WorkflowError
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.runs.events import (
    CancelRequested,
    Event,
    NoticeAdded,
    OutputsFound,
    PartAdded,
    PartChanged,
    PartsCompleted,
    RetryRequested,
    RunCancelled,
    RunCompleted,
    RunFailed,
)
from comfyui_workflow.runs.model import DAMAGED, OutputFile, Run, RunStatus
from comfyui_workflow.runs.parts import (
    PARTS_FAILED,
    Partial,
    PartOrder,
    PartsOrder,
    PartState,
    folder_of_part,
    missing_sentence,
)
from comfyui_workflow.runs.retryability import retry_refusal
from comfyui_workflow.runs.target import tag_of
from comfyui_workflow.scheduling.capacity import Registry
from comfyui_workflow.scheduling.executor import Executor
from comfyui_workflow.scheduling.pending_queue import AnyWithTag
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.stores.base import RunStore
from comfyui_workflow.stores.journal import RunJournal, now

log = logging.getLogger(__name__)

MOST_MOVES = 3
"""Times that one part is given to another instance after it failed: the workflow itself may be the reason."""
AGAIN_AFTER_S = 5.0
"""Delay before a retry when the local disk did not accept a record."""
STAYING_FAILURES = frozenset(
    {DAMAGED, "invalid_inputs", "input_not_downloaded", "api_key_gone", "no_instance", "invalid_workflow"}
)
"""Error codes that another instance would repeat."""
_NEVER_ACCEPTED = "The run that this is a part of could not be saved, so it was not started"


class Gathering(Protocol):
    """Continues a run whose parts have ended, and whose pictures are collected."""

    def gathered(self, run: Run, parts: Sequence[Run]) -> Sequence[Event]:
        """Returns the events that complete the graph of the run. Raises: WorkflowError."""

    def forget(self, run: Run) -> None:
        """Removes what was kept for a run that has ended."""


@dataclass(frozen=True, kw_only=True)
class PartTools:
    journal: RunJournal
    store: RunStore
    service: RunService
    executor: Executor
    directory: Registry
    gathering: Gathering | None = None


class PartService:
    """See the module. Thread-safe. No method waits for an instance."""

    def __init__(self, tools: PartTools) -> None:
        self._journal = tools.journal
        self._store = tools.store
        self._service = tools.service
        self._executor = tools.executor
        self._directory = tools.directory
        self._gathering = tools.gathering
        self._locks = KeyedLocks(make=threading.RLock)
        """Held while a run is advanced. Reentrant: a part that is started or cancelled may end at once."""
        self._is_working = False
        tools.journal.listen_for_statuses(self._on_status)

    def recover(self) -> None:
        """Repairs what a crashed server left incomplete. Called at start, before the unfinished runs are
        resumed."""
        for run in self._store.unfinished():
            parent_id = run.request.parent_id
            if parent_id is not None:
                self._recover_part(run, self._store.get(parent_id))
            for part in run.current_parts if run.waits_for_parts else ():
                if self._store.get(part.run_id) is None:
                    self._service.save_part(run, part, _left_by(run, part))

    def _recover_part(self, part: Run, parent: Run | None) -> None:
        if parent is None:
            self._journal.record(part.run_id, RunCancelled(message=_NEVER_ACCEPTED))
        elif parent.is_finished or parent.is_cancel_requested:
            self._journal.record(part.run_id, RunCancelled() if part.prompt_id is None else CancelRequested())

    def start(self) -> None:
        """Continues the runs whose parts ended before the server stopped. Called after the runs are
        resumed."""
        self._is_working = True
        for run in self._store.unfinished():
            if run.waits_for_parts:
                self._catch_up(run)

    def stop(self) -> None:
        self._is_working = False

    def _catch_up(self, run: Run) -> None:
        for state in run.current_parts:
            part = self._store.get(state.run_id)
            if part is not None:
                self._journal.record(run.run_id, PartChanged(part=state_of(part)))
        self._advance(run.run_id)

    def _on_status(self, run: Run) -> None:
        """Callback of the journal."""
        if run.request.part is not None:
            self._on_part_status(run, run.request.part)
        elif not self._is_working:
            return
        elif run.parts and not run.is_finished and run.status is RunStatus.QUEUED:
            self._continue_failed(run)
        elif run.parts and run.is_finished:
            self._on_parent_finished(run)

    def _on_part_status(self, part: Run, order: PartOrder) -> None:
        with suppress(RunNotFound):  # its run was never accepted
            self._journal.record(order.parent_id, PartChanged(part=state_of(part)))
            if part.is_finished:
                self._advance(order.parent_id)

    def _on_parent_finished(self, run: Run) -> None:
        """A batch ends waiting runs directly: then the parts end too."""
        for part in run.current_parts:
            if not part.status.is_finished:
                self._cancel(part, run.error_message)
        if self._gathering is not None and run.status is not RunStatus.FAILED:
            self._gathering.forget(run)

    def _advance(self, run_id: str) -> None:
        """Does what follows from the state of all parts. Tries again later if the local disk does not accept
        it."""
        if not self._is_working:
            return
        try:
            with self._locks.of(run_id):
                run = self._journal.get(run_id)
                if run.waits_for_parts:
                    self._advance_run(run)
        except (StoreError, OSError) as error:
            log.error("%s: its parts have changed, and that cannot be saved: %s", run_id, error)
            timer = threading.Timer(AGAIN_AFTER_S, self._advance, (run_id,))
            timer.daemon = True
            timer.start()

    def _advance_run(self, run: Run) -> None:
        parts = run.current_parts
        failed = [part for part in parts if part.status in (RunStatus.FAILED, RunStatus.CANCELLED)]
        if failed and not run.is_cancel_requested:
            if _policy(run) is Partial.MOVE:
                for part in failed:
                    self._move(run, part)
            elif _policy(run) is Partial.FAIL:
                self._cancel_others(run, failed[0])
            run = self._journal.get(run.run_id)
        if all(part.status.is_finished for part in run.current_parts):
            self._end(run)

    def _move(self, run: Run, failed: PartState) -> None:
        """Gives the part to another instance, if there is one that may do better."""
        if failed.status is not RunStatus.FAILED or failed.error_code in STAYING_FAILURES:
            return
        without = _left_by(run, failed)
        times = sum(part.number == failed.number for part in run.parts)
        if times > MOST_MOVES or not any(self._allowed(run, without)):
            return
        self._add(run, failed.number, without)
        sentence = missing_sentence([failed], len(run.current_parts))
        self._journal.record(run.run_id, NoticeAdded(message=f"{sentence}. Another instance takes this part"))

    def _add(self, run: Run, number: int, without: tuple[str, ...] = ()) -> None:
        part = PartState(run_id=self._service.new_part_id(), number=number)
        self._journal.record(run.run_id, PartAdded(part=part))
        self._service.add_part(run, part, without)
        if self._journal.get(run.run_id).is_cancel_requested:  # meanwhile
            self._cancel(part)

    def _allowed(self, run: Run, without: tuple[str, ...]) -> Iterator[Instance]:
        """The instances that may take a part of the run."""
        tag, order = tag_of(run.request.target), run.request.parts or PartsOrder(count=1)
        if tag is None and order.collects is None:
            return iter(())
        target = AnyWithTag(tag=tag or "", among=order.among, without=without)
        return filter(target.allows, self._directory.all())

    def _cancel_others(self, run: Run, failed: PartState) -> None:
        reason = f"Part {failed.number + 1} of the run has failed"
        for part in run.current_parts:
            if not part.status.is_finished:
                self._cancel(part, reason)

    def _cancel(self, part: PartState, reason: str | None = None) -> None:
        with suppress(RunConflict, RunNotFound):  # it has ended meanwhile
            self._service.cancel(part.run_id, reason)

    # all parts have ended

    def _end(self, run: Run) -> None:
        parts = [part for part in map(self._store.get, (each.run_id for each in run.current_parts)) if part]
        done = [part for part in parts if part.status is RunStatus.COMPLETED]
        missing = [part for part in run.current_parts if part.status is not RunStatus.COMPLETED]
        if missing and (run.is_cancel_requested or not done or _policy(run) is not Partial.KEEP):
            self._journal.record(run.run_id, OutputsFound(outputs=_outputs_of(done)))
            self._journal.record(run.run_id, self._ending(run, missing))
            return
        if missing:
            sentence = f"Missing: {missing_sentence(missing, len(run.current_parts))}"
            self._journal.record(run.run_id, NoticeAdded(message=sentence))
        self._complete(run, done)

    def _ending(self, run: Run, missing: Sequence[PartState]) -> Event:
        """The run fails with the code of the first part that a retry could mend."""
        if run.is_cancel_requested:
            return RunCancelled()
        failed = [part for part in map(self._store.get, (each.run_id for each in missing)) if part]
        mendable = (part.error_code for part in failed if retry_refusal(part) is None)
        first = next((part.error_code for part in missing if part.error_code), None)
        failures = [part for part in missing if part.status is RunStatus.FAILED] or missing
        return RunFailed(
            code=next(mendable, first) or PARTS_FAILED,
            message=missing_sentence(failures, len(run.current_parts)),
        )

    def _complete(self, run: Run, done: Sequence[Run]) -> None:
        order = run.request.parts
        if order is not None and order.collects is not None and self._gathering is not None:
            self._gather(run, done, self._gathering)
            return
        placements = (part.placement for part in done if part.placement is not None)
        known = PartsCompleted(
            outputs=_outputs_of(done),
            placement=next(placements, None) if run.request.upload is not None else None,
        )
        run = self._journal.record(run.run_id, known)
        if run.is_uploading:
            self._executor.start(run.run_id)
        else:
            self._journal.record(run.run_id, RunCompleted())

    def _gather(self, run: Run, done: Sequence[Run], gathering: Gathering) -> None:
        try:
            events = gathering.gathered(run, done)
        except StoreError:
            raise
        except WorkflowError as error:
            self._journal.record(run.run_id, RunFailed(code=error.code, message=str(error)))
            return
        for event in events:
            self._journal.record(run.run_id, event)
        self._executor.start(run.run_id)

    # a retry

    def _continue_failed(self, run: Run) -> None:
        """The failed parts of a run that is retried continue, or are executed again where that cannot
        help."""
        if not run.waits_for_parts:
            return
        for state in run.current_parts:
            part = self._store.get(state.run_id)
            if part is None or part.status is RunStatus.COMPLETED:
                continue
            if retry_refusal(part) is None:
                self._journal.record(part.run_id, RetryRequested())
                self._executor.start(part.run_id)
            elif part.is_finished:
                self._add(run, state.number)
        self._advance(run.run_id)


def state_of(part: Run) -> PartState:
    """Returns what the record of the run keeps about this part."""
    order, at, placement = part.request.part, now(), part.placement
    return PartState(
        run_id=part.run_id,
        number=order.number if order is not None else 0,
        status=part.status,
        instance=None if placement is None else placement.name,
        instance_id=None if placement is None else placement.instance_id,
        gpu_s=part.gpu_seconds(part.end_time or at) if part.is_finished else 0.0,
        cost=part.cost(part.end_time or at) if part.is_finished else None,
        error_message=part.error_message,
        error_code=part.error_code,
    )


@dataclass(frozen=True, kw_only=True)
class LivePart:
    """A part in its current state."""

    state: PartState
    progress_percent: float


def live_parts(service: RunService, run: Run, at: datetime) -> list[LivePart]:
    """Returns the parts of an unfinished run as they are at this time."""
    return [_live_part(service, state, at) for state in run.current_parts]


def _live_part(service: RunService, state: PartState, at: datetime) -> LivePart:
    try:
        part = service.get(state.run_id)
    except RunNotFound:  # it is about to be saved
        return LivePart(state=state, progress_percent=0.0)
    if not part.is_finished:
        state = replace(state_of(part), gpu_s=part.gpu_seconds(at), cost=part.cost(at))
    return LivePart(state=state, progress_percent=part.progress_percent)


def progress_with_parts(run: Run, parts: Sequence[LivePart]) -> float:
    """Mean progress of the parts, in percent; where their pictures are collected, of the run's own prompt
    too."""
    percents = [part.progress_percent for part in parts]
    if run.request.parts is not None and run.request.parts.collects is not None:
        percents.append(run.progress_percent if run.are_parts_done else 0.0)
    return round(sum(percents) / max(1, len(percents)), 1)


def _policy(run: Run) -> Partial:
    return run.request.parts.partial if run.request.parts is not None else Partial.MOVE


def _left_by(run: Run, part: PartState) -> tuple[str, ...]:
    """The ids of the instances on which this part of the run failed."""
    failed = (
        each.instance_id
        for each in run.parts
        if each.number == part.number and each.status is RunStatus.FAILED and each.instance_id is not None
    )
    return tuple(dict.fromkeys(failed))


def _outputs_of(parts: Sequence[Run]) -> tuple[OutputFile, ...]:
    """Returns the outputs of the parts in their order, each in the directory of its part."""
    return tuple(_in_folder(output, part) for part in parts for output in part.outputs)


def _in_folder(output: OutputFile, part: Run) -> OutputFile:
    number = part.request.part.number if part.request.part is not None else 0
    folder = str(PurePosixPath(folder_of_part(number), output.subfolder))
    return replace(output, subfolder=folder, part=number)
