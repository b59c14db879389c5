"""Batches: ordered at once, all or none of them; cancelled, retried and summed up together."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from threading import Lock

from comfyui_workflow.concurrency import parallel_map
from comfyui_workflow.errors import BatchNotFound, RunConflict
from comfyui_workflow.runs.batch import (
    Batch,
    BatchOrder,
    BatchProgress,
    OnError,
    new_batch_id,
    progress_of,
)
from comfyui_workflow.runs.events import CancelRequested, RunCancelled
from comfyui_workflow.runs.model import DAMAGED, Run, RunStatus, later_than, time_of_id
from comfyui_workflow.runs.summary import RunSummary
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.stores.base import BatchStore, RunStore, UnreadableRecord
from comfyui_workflow.stores.damage import DamageReport
from comfyui_workflow.stores.journal import RunJournal, now

log = logging.getLogger(__name__)

MOST_PROGRESSES_KEPT = 2000
"""Of finished batches."""
RUNS_WARMED_UP = 100_000
MOST_ASKED = 20
"""Runs that are asked what their batch was: one is enough whose record is whole."""
_LENGTH_WITH_TIME = len("batch_1700000000_0123456789abc") - 1


class BatchService:
    """Every method may be called from any thread, and none waits for an instance."""

    def __init__(
        self,
        journal: RunJournal,
        store: RunStore,
        service: RunService,
        batches: BatchStore,
        damage: DamageReport | None = None,
    ) -> None:
        self._damage = damage or DamageReport()
        self._progresses: dict[str, tuple[int, BatchProgress]] = {}
        self._ordering = Lock()
        self._last_at: datetime | None = None
        self._journal = journal
        self._store = store
        self._service = service
        self._batches = batches
        journal.listen(self._heed)

    def submit(self, order: BatchOrder) -> Batch:
        """On disk before this returns, the batch last: a run without its batch was never accepted.
        Raises: StoreError; then nothing was ordered."""
        at = now()
        batch = Batch(
            batch_id=new_batch_id(self._id_time(at)),
            name=order.name,
            created_at=at,
            total=len(order.requests),
            stagger_s=order.stagger_s,
            on_error=order.on_error,
        )
        requests = [
            replace(
                request,
                batch_id=batch.batch_id,
                batch_name=batch.name,
                batch_total=batch.total,
                batch_on_error=batch.on_error.value,
                stagger_s=order.stagger_s,
                not_before=at + timedelta(seconds=number * order.stagger_s) if order.stagger_s else None,
            )
            for number, request in enumerate(order.requests)
        ]
        runs = self._service.keep_all(requests)
        try:
            self._batches.add(batch)
        except BaseException:
            self._refuse(runs)
            raise
        self._service.start(runs)
        return batch

    def progress(self, batch_id: str) -> BatchProgress:
        """Raises: BatchNotFound."""
        return self._progress_of(self._batches.get(batch_id))

    def runs(self, batch_id: str) -> list[RunSummary]:
        """In the order they were ordered. Raises: BatchNotFound."""
        self._batches.get(batch_id)
        return self._store.of_batch(batch_id)

    def page(self, limit: int, before: str | None) -> list[BatchProgress]:
        """Newest first."""
        return [self.progress(batch_id) for batch_id in self._batches.page(limit, before)]

    def warm_up(self) -> None:
        """Sum up the newest batches, so that nobody waits for that who lists them first."""
        left = RUNS_WARMED_UP
        for batch_id in self._batches.page(MOST_PROGRESSES_KEPT, None):
            with suppress(BatchNotFound):
                left -= self.progress(batch_id).batch.total
            if left <= 0:
                return

    def named(self, part: str) -> frozenset[str]:
        """Ids of those with that in their name, in capitals or not."""
        return self._batches.named(part)

    def progress_of_run(self, run: RunSummary) -> BatchProgress | None:
        """Of the batch that it belongs to, if it does. One that was never accepted is what its runs are."""
        if run.batch_id is None:
            return None
        try:
            return self._progress_of(self._batches.get(run.batch_id))
        except BatchNotFound:
            return progress_of(
                self._batch_of_runs(run.batch_id, run), self._store.of_batch(run.batch_id), now()
            )

    def cancel(self, batch_id: str) -> int:
        """How many runs were asked to end: on disk before this returns, for all of them in one.
        Raises: BatchNotFound; RunConflict when all are finished; StoreError."""
        unfinished = [run for run in self.runs(batch_id) if not run.is_finished]
        if not unfinished:
            raise RunConflict(f"Every run of the batch is finished already: {batch_id}")
        self._batches.add(replace(self._batches.get(batch_id), cancelled_at=now()))
        return self._service.cancel_all([run.run_id for run in reversed(unfinished)])

    def retry(self, batch_id: str) -> int:
        """How many failed runs were taken up where they failed. Raises: BatchNotFound; RunConflict when there
        is nothing that a retry could do."""
        failed = [run for run in self.runs(batch_id) if run.status is RunStatus.FAILED]
        retried = self._each(failed, lambda run: self._service.retry(run.run_id))
        if not retried:
            raise RunConflict("No run of the batch has failed in a way that a retry could mend")
        return retried

    def resume(self) -> None:
        """Before the unfinished runs are taken up: what a server that died has left half done, and what a
        disk has damaged."""
        for unreadable_id, damaged in sorted(self._batches.unreadable.items()):
            self._restore(unreadable_id, damaged)
        for run in self._store.unfinished():
            batch_id = run.request.batch_id
            if batch_id is None:
                continue
            if not self._is_accepted(batch_id):
                self._refuse([run])
            elif _was_cancelled(run, self._batches.get(batch_id)):
                ending = RunCancelled() if run.prompt_id is None else CancelRequested()
                self._journal.record(run.run_id, ending)

    def on_run_failed(self) -> None:
        """After they were taken up: a server may have died between a failure and what follows from it."""
        batch_ids = {run.request.batch_id for run in self._store.unfinished()} - {None}
        for batch_id in batch_ids:
            failed = [run for run in self._store.of_batch(str(batch_id)) if _is_failure(run)]
            if failed:
                self._stop_if_asked(str(batch_id), failed[0].run_id)

    def _heed(self, run: Run) -> None:
        if run.request.batch_id is not None and _is_failure(run):
            self._stop_if_asked(run.request.batch_id, run.run_id)

    def _stop_if_asked(self, batch_id: str, failed_id: str) -> None:
        """Prompts that are at an instance go on: they are paid for."""
        if not self._is_accepted(batch_id) or self._batches.get(batch_id).on_error is not OnError.STOP:
            return
        waiting = [
            run for run in self._store.of_batch(batch_id) if not run.is_finished and run.prompt_id is None
        ]
        reason = f"Not started: the run {failed_id} of the same batch has failed"
        self._service.cancel_all([run.run_id for run in reversed(waiting)], reason)

    def _restore(self, batch_id: str, damaged: UnreadableRecord) -> None:
        """Make a batch again from its runs. Where there are none, the damaged record stays as it is."""
        runs = self._store.of_batch(batch_id)
        if not runs:
            outcome = "No run of this batch is there, so it is not listed"
        else:
            self._batches.replace_unreadable(self._batch_of_runs(batch_id, runs[0]))
            outcome = f"The batch was made anew of its {len(runs)} runs; none of them was cancelled"
        self._damage.add(damaged.path, damaged.reason, outcome)

    def _batch_of_runs(self, batch_id: str, told: RunSummary) -> Batch:
        """What the runs of a batch tell of it, one of them first: all but a cancel, and but its name where an
        earlier release has ordered them."""
        ids = [summary.run_id for summary in self._store.of_batch(batch_id)]
        requests = [run.request for run in map(self._store.get, ids[:MOST_ASKED]) if run is not None]
        known = next((each for each in requests if each.batch_total is not None), None)
        on_error = known.batch_on_error if known is not None else None
        return Batch(
            batch_id=batch_id,
            name=known.batch_name if known and known.batch_name else told.workflow_name,
            created_at=time_of_id(batch_id) if len(batch_id) > _LENGTH_WITH_TIME else told.queue_time,
            total=known.batch_total if known and known.batch_total else len(ids),
            stagger_s=max((each.stagger_s for each in requests), default=0.0),
            on_error=OnError.CONTINUE if on_error is None else OnError(on_error),
        )

    def _progress_of(self, batch: Batch) -> BatchProgress:
        """Of a batch whose runs are all finished it is kept until one of them changes."""
        stamp, known = self._store.batch_stamp(batch.batch_id), self._progresses.get(batch.batch_id)
        if known is not None and known[0] == stamp and known[1].batch is batch:
            return known[1]
        progress = progress_of(batch, self._store.of_batch(batch.batch_id), now())
        if stamp is not None:
            if len(self._progresses) >= MOST_PROGRESSES_KEPT:
                self._progresses.clear()
            self._progresses[batch.batch_id] = (stamp, progress)
        return progress

    def _id_time(self, at: datetime) -> datetime:
        """For the id of a new batch: later than that of every other, also where a clock was set back."""
        with self._ordering:
            known = self._batches.latest_id()
            self._last_at = later_than(self._last_at or (time_of_id(known) if known else None), at)
            return self._last_at

    def _each(self, runs: Sequence[RunSummary], act: Callable[[RunSummary], object]) -> int:
        """How many of them it could be done with: others may have gone on meanwhile."""
        done = 0
        for run in runs:
            try:
                act(run)
            except RunConflict as error:
                log.debug("%s: %s", run.run_id, error)
            else:
                done += 1
        return done

    def _is_accepted(self, batch_id: str) -> bool:
        try:
            self._batches.get(batch_id)
        except BatchNotFound:
            return False
        return True

    def _refuse(self, runs: Sequence[Run]) -> None:
        ended = RunCancelled(message="The batch could not be saved whole, so none of it was started")
        parallel_map(lambda run: self._journal.record(run.run_id, ended), runs)


def _is_failure(run: Run | RunSummary) -> bool:
    """One that stops the batch, where it is to stop: not what a disk has done to a record."""
    return run.status is RunStatus.FAILED and run.error_code != DAMAGED


def _was_cancelled(run: Run, batch: Batch) -> bool:
    """A run that was taken up again after its batch was cancelled was not."""
    return batch.cancelled_at is not None and run.last_update <= batch.cancelled_at
