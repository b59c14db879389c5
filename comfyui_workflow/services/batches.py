"""Batches: many runs that are submitted atomically, and cancelled, retried and summarized together.

How it works. `submit` saves all runs first and the record of the batch last. A run whose batch has no record
was never accepted: `resume` cancels such runs at the next start. `cancel` saves the time of the cancellation
in the record of the batch before it cancels the runs, so `resume` can finish a cancellation that a crash cut
short. A damaged record of a batch is rebuilt from its runs.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from threading import Lock

from comfyui_workflow.concurrency import KeyedLocks, parallel_map
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
"""Maximum number of finished batches whose progress is cached."""
RUNS_WARMED_UP = 100_000
"""`warm_up` stops after batches with this many runs in total."""
MAX_RUNS_READ = 20
"""Maximum number of runs that are read to rebuild a batch. One run with an undamaged record is enough."""
_LENGTH_WITH_TIME = len("batch_1700000000_0123456789abc") - 1


class BatchService:
    """Service for batches. Thread-safe. No method waits for an instance."""

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
        self._submitting = KeyedLocks()
        journal.listen(self._on_run_finished)

    def submit(self, order: BatchOrder, idempotency_key: str | None = None) -> Batch:
        """Submits all runs of a batch, or none.

        The runs and the batch are on disk before this returns. The batch is written last: a run without its
        batch was never accepted. `idempotency_key`: 16 hexadecimal digits. If a batch was submitted with the
        same key before, returns that batch instead. Raises: StoreError; then nothing was submitted."""
        if idempotency_key is None:
            return self._submit(order)
        with self._submitting.of(idempotency_key):
            return self.submitted_before(idempotency_key) or self._submit(order, idempotency_key)

    def submitted_before(self, idempotency_key: str | None) -> Batch | None:
        """Returns the batch that was submitted with this key; None without a key."""
        known = None if idempotency_key is None else self._batches.by_idempotency_key(idempotency_key)
        return None if known is None else self._batches.get(known)

    def _submit(self, order: BatchOrder, idempotency_key: str | None = None) -> Batch:
        at = now()
        batch = Batch(
            batch_id=new_batch_id(self._id_time(at), idempotency_key),
            name=order.name,
            created_at=at,
            total=len(order.requests),
            stagger_s=order.stagger_s,
            on_error=order.on_error,
            webhook=order.webhook,
        )
        requests = [
            replace(
                request,
                batch_id=batch.batch_id,
                batch_name=batch.name,
                batch_total=batch.total,
                batch_on_error=batch.on_error.value,
                batch_webhook=batch.webhook,
                stagger_s=order.stagger_s,
                not_before=at + timedelta(seconds=number * order.stagger_s) if order.stagger_s else None,
            )
            for number, request in enumerate(order.requests)
        ]
        runs = self._service.save_all(requests, order.comfy_org_api_keys)
        try:
            self._batches.add(batch)
        except BaseException:
            self._reject(runs)
            raise
        self._service.start(runs)
        return batch

    def progress(self, batch_id: str) -> BatchProgress:
        """Returns the progress of a batch. Raises: BatchNotFound."""
        return self._progress_of(self._batches.get(batch_id))

    def runs(self, batch_id: str) -> list[RunSummary]:
        """Returns the runs of a batch, in the order of submission. Raises: BatchNotFound."""
        self._batches.get(batch_id)
        return self._store.of_batch(batch_id)

    def page(self, limit: int, before: str | None) -> list[BatchProgress]:
        """Returns a page of batches, newest first."""
        return [self.progress(batch_id) for batch_id in self._batches.page(limit, before)]

    def warm_up(self) -> None:
        """Computes the progress of the newest batches, so that the first request for the list is fast."""
        left = RUNS_WARMED_UP
        for batch_id in self._batches.page(MOST_PROGRESSES_KEPT, None):
            with suppress(BatchNotFound):
                left -= self.progress(batch_id).batch.total
            if left <= 0:
                return

    def named(self, part: str) -> frozenset[str]:
        """Returns the ids of batches whose name contains `part`, ignoring case."""
        return self._batches.named(part)

    def progress_of_run(self, run: RunSummary) -> BatchProgress | None:
        """Returns the progress of the batch of a run, or None if the run has no batch.

        A batch that was never accepted has no record: its progress is computed from its runs."""
        if run.batch_id is None:
            return None
        try:
            return self._progress_of(self._batches.get(run.batch_id))
        except BatchNotFound:
            return progress_of(
                self._batch_of_runs(run.batch_id, run), self._store.of_batch(run.batch_id), now()
            )

    def cancel(self, batch_id: str) -> int:
        """Requests the cancellation of all unfinished runs, and returns their number.

        One record on disk covers all of them before this returns.
        Raises: BatchNotFound; RunConflict if all runs are finished; StoreError."""
        unfinished = [run for run in self.runs(batch_id) if not run.is_finished]
        if not unfinished:
            raise RunConflict(f"All runs of the batch are already finished: {batch_id}")
        self._batches.add(replace(self._batches.get(batch_id), cancelled_at=now()))
        return self._service.cancel_all([run.run_id for run in reversed(unfinished)])

    def retry(self, batch_id: str) -> int:
        """Continues the failed runs at the step where they failed, and returns their number.

        Raises: BatchNotFound; RunConflict if no run can be retried."""
        failed = [run for run in self.runs(batch_id) if run.status is RunStatus.FAILED]
        retried = self._each(failed, lambda run: self._service.retry(run.run_id))
        if not retried:
            raise RunConflict("The batch has no failed run that can be retried")
        return retried

    def resume(self) -> None:
        """Repairs damaged batches and finishes what a crashed server left incomplete.

        Called at start, before the unfinished runs are resumed."""
        for unreadable_id, damaged in sorted(self._batches.unreadable.items()):
            self._rebuild(unreadable_id, damaged)
        for run in self._store.unfinished():
            batch_id = run.request.batch_id
            if batch_id is None:
                continue
            if not self._is_accepted(batch_id):
                self._reject([run])
            elif _was_cancelled(run, self._batches.get(batch_id)):
                ending = RunCancelled() if run.prompt_id is None else CancelRequested()
                self._journal.record(run.run_id, ending)

    def stop_failed(self) -> None:
        """Stops the unfinished batches that have a failed run, where the batch asks for that.

        Called at start, after the unfinished runs are resumed: the server may have crashed between a failure
        and the cancellation that follows from it."""
        batch_ids = {run.request.batch_id for run in self._store.unfinished()} - {None}
        for batch_id in batch_ids:
            failed = [run for run in self._store.of_batch(str(batch_id)) if _is_failure(run)]
            if failed:
                self._stop_if_asked(str(batch_id), failed[0].run_id)

    def _on_run_finished(self, run: Run) -> None:
        if run.request.batch_id is not None and _is_failure(run):
            self._stop_if_asked(run.request.batch_id, run.run_id)

    def _stop_if_asked(self, batch_id: str, failed_id: str) -> None:
        """Cancels the waiting runs of a batch that is to stop after a failure.

        Prompts that are already on an instance continue: their GPU time is paid for."""
        if not self._is_accepted(batch_id) or self._batches.get(batch_id).on_error is not OnError.STOP:
            return
        waiting = [
            run
            for run in self._store.of_batch(batch_id)
            if run.status is RunStatus.QUEUED and run.prompt_id is None
        ]
        reason = f"Not started: the run {failed_id} of the same batch has failed"
        self._service.cancel_all([run.run_id for run in reversed(waiting)], reason)

    def _rebuild(self, batch_id: str, damaged: UnreadableRecord) -> None:
        """Rebuilds a batch from its runs. Without any run, the damaged record stays as it is."""
        runs = self._store.of_batch(batch_id)
        if not runs:
            outcome = "No run of this batch exists, so it is not listed"
        else:
            self._batches.replace_unreadable(self._batch_of_runs(batch_id, runs[0]))
            outcome = f"The batch was rebuilt from its {len(runs)} runs; none of them was cancelled"
        self._damage.add(damaged.path, damaged.reason, outcome)

    def _batch_of_runs(self, batch_id: str, fallback: RunSummary) -> Batch:
        """Returns a batch that is rebuilt from its runs.

        A cancellation is lost. For runs of a release that did not save the name of the batch, the workflow
        name of the run `fallback` is used."""
        ids = [summary.run_id for summary in self._store.of_batch(batch_id)]
        requests = [run.request for run in map(self._store.get, ids[:MAX_RUNS_READ]) if run is not None]
        known = next((each for each in requests if each.batch_total is not None), None)
        on_error = known.batch_on_error if known is not None else None
        return Batch(
            batch_id=batch_id,
            name=known.batch_name if known and known.batch_name else fallback.workflow_name,
            created_at=time_of_id(batch_id) if len(batch_id) > _LENGTH_WITH_TIME else fallback.queue_time,
            total=known.batch_total if known and known.batch_total else len(ids),
            stagger_s=max((each.stagger_s for each in requests), default=0.0),
            on_error=OnError.CONTINUE if on_error is None else OnError(on_error),
            webhook=known.batch_webhook if known is not None else None,
        )

    def _progress_of(self, batch: Batch) -> BatchProgress:
        """Returns the progress. It is cached while all runs are finished and none of them changes."""
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
        """Returns the time for a new batch id: later than all others, even if the clock was set back."""
        with self._ordering:
            known = self._batches.latest_id()
            self._last_at = later_than(self._last_at or (time_of_id(known) if known else None), at)
            return self._last_at

    def _each(self, runs: Sequence[RunSummary], act: Callable[[RunSummary], object]) -> int:
        """Calls `act` for each run, and returns how many calls raised no RunConflict.

        A conflict is expected: the state of a run may have changed in the meantime."""
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

    def _reject(self, runs: Sequence[Run]) -> None:
        """Cancels runs whose batch was not accepted."""
        ended = RunCancelled(message="The batch could not be saved completely, so no run of it was started")
        parallel_map(lambda run: self._journal.record(run.run_id, ended), runs)


def _is_failure(run: Run | RunSummary) -> bool:
    """True if the run has failed in a way that may stop its batch. A damaged record is no such failure."""
    return run.status is RunStatus.FAILED and run.error_code != DAMAGED


def _was_cancelled(run: Run, batch: Batch) -> bool:
    """True if the cancellation of the batch covers this run. A run that was retried later is not covered."""
    return batch.cancelled_at is not None and run.last_update <= batch.cancelled_at
