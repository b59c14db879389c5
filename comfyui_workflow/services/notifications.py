"""Notifications: webhooks about the ends of runs and batches, for clients of `execute` and `batch`.

How it works. Before a run with a webhook is saved, its id (or that of its batch) is saved among the pending
ones. When the run ends, its message is put into the outbox, and only then the id is removed. So after a crash
at any moment `resume` finds the ends that were not notified. A message has the same id each time it is put
into the outbox, which drops a known one. A run that is retried has another end, and another message.
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Protocol

from comfyui_workflow.concurrency import KeyedLocks
from comfyui_workflow.delivery.webhooks.serializers import notification_document
from comfyui_workflow.delivery.webhooks.standard import event_body
from comfyui_workflow.errors import BatchNotFound, StoreError
from comfyui_workflow.runs.batch import Batch, BatchProgress, progress_of
from comfyui_workflow.runs.document import batch_document, progress_document
from comfyui_workflow.runs.model import OutputFile, Run
from comfyui_workflow.runs.notification import NotifiedEvent, WebhookOrder, event_of
from comfyui_workflow.runs.status import is_run_id
from comfyui_workflow.runs.webhook import Delivery, delivery_id_of
from comfyui_workflow.stores.base import BatchStore, PendingStore, RunStore
from comfyui_workflow.stores.journal import RunJournal, now

log = logging.getLogger(__name__)

MOST_OUTPUTS_TOLD = 1000
"""Maximum number of outputs in a message about a batch. `outputs_url` has all of them."""
AGAIN_AFTER_S = 5.0
"""Delay before a retry when the local disk did not accept a message."""


class MessageOutbox(Protocol):
    def add(
        self,
        url: str,
        body: Mapping[str, Any],
        run_id: str,
        delivery_id: str | None = None,
        *,
        message_id: str | None = None,
    ) -> object:
        """Saves a message for delivery, on disk when this returns. A known id is not added again.
        Raises: StoreError."""

    def deliveries(self, limit: int, before: str | None = None, run_id: str | None = None) -> list[Delivery]:
        """Returns the deliveries about a run or batch, newest first."""


@dataclass(frozen=True, kw_only=True)
class RunNotifierTools:
    journal: RunJournal
    store: RunStore
    batches: BatchStore
    outbox: MessageOutbox
    pending: PendingStore


class RunNotifier:
    """See the module. Thread-safe. No method waits for another server."""

    def __init__(self, tools: RunNotifierTools) -> None:
        self._tools = tools
        self._ordering = KeyedLocks()
        self._is_stopping = False
        tools.journal.listen_before_adding(self._expect)
        tools.journal.listen(self._on_run_finished)
        tools.journal.listen_for_reopening(self._on_run_reopened)

    def resume(self) -> None:
        """Notifies of the ends that a crashed server left. Called at start, after batches are repaired."""
        try:
            for subject_id in self._tools.pending.all():
                self._settle(subject_id)
        except StoreError as error:
            log.error("Pending notifications are not sent: %s", error)

    def stop(self) -> None:
        self._is_stopping = True

    def of_run(self, run: Run) -> dict[str, Any] | None:
        """Returns the state of the run's notification as a document; None if the run has no webhook."""
        order = run.request.webhook
        if order is None:
            return None
        event = event_of(run.status)
        is_due = event is None or event in order.events
        return notification_document(order, self._newest(run.run_id), is_due=is_due, is_over=run.is_finished)

    def of_batch(self, progress: BatchProgress) -> dict[str, Any] | None:
        """Returns the state of the batch's notification as a document; None if the batch has no webhook."""
        batch = progress.batch
        if batch.webhook is None:
            return None
        newest, is_over = self._newest(batch.batch_id), progress.status.is_finished
        return notification_document(batch.webhook, newest, is_due=True, is_over=is_over)

    def _newest(self, subject_id: str) -> Delivery | None:
        return next(iter(self._tools.outbox.deliveries(1, run_id=subject_id)), None)

    # callbacks of the journal

    def _expect(self, runs: Sequence[Run]) -> None:
        """Raises: StoreError."""
        for subject_id in sorted({_subject_of(run) for run in runs if _has_webhook(run)}):
            self._tools.pending.add(subject_id)

    def _on_run_finished(self, run: Run) -> None:
        if _has_webhook(run):
            self._notify(_subject_of(run), [run])

    def _on_run_reopened(self, run: Run) -> None:
        if not _has_webhook(run):
            return
        subject_id = _subject_of(run)
        try:
            with self._ordering.of(subject_id):
                self._tools.pending.add(subject_id)
        except StoreError as error:
            log.error("%s: a crash may lose its notification: %s", run.run_id, error)

    # the messages

    def _notify(self, subject_id: str, runs: Sequence[Run]) -> None:
        """Notifies of the ends of these runs, and of the end of their batch if all its runs have ended."""
        try:
            with self._ordering.of(subject_id):
                if is_run_id(subject_id):
                    self._notify_of_run(subject_id, runs)
                else:
                    self._notify_of_batch(subject_id, runs)
        except StoreError as error:
            log.error("%s has ended, but its notification cannot be saved: %s", subject_id, error)
            self._settle_later(subject_id)

    def _settle(self, subject_id: str) -> None:
        """Notifies of all ends of a run or batch. A known message is not added again."""
        if self._is_stopping:
            return
        if is_run_id(subject_id):
            ids = [subject_id]
        else:
            ids = [each.run_id for each in self._tools.store.of_batch(subject_id) if each.is_finished]
        self._notify(subject_id, [run for run in map(self._tools.store.get, ids) if run is not None])

    def _settle_later(self, subject_id: str) -> None:
        timer = threading.Timer(AGAIN_AFTER_S, self._settle, (subject_id,))
        timer.daemon = True
        timer.start()

    def _notify_of_run(self, run_id: str, runs: Sequence[Run]) -> None:
        """Raises: StoreError."""
        for run in runs:
            self._add_run(run)
        now_saved = self._tools.store.get(run_id)  # it may have been retried meanwhile
        if now_saved is None or now_saved.is_finished:
            self._tools.pending.remove(run_id)

    def _notify_of_batch(self, batch_id: str, runs: Sequence[Run]) -> None:
        """Raises: StoreError."""
        try:
            batch = self._tools.batches.get(batch_id)
        except BatchNotFound:  # it was never accepted
            self._tools.pending.remove(batch_id)
            return
        for run in runs:
            self._add_run(run)
        if self._tools.store.batch_stamp(batch_id) is not None:
            self._add_batch(batch)
            self._tools.pending.remove(batch_id)

    def _add_run(self, run: Run) -> None:
        event, order = event_of(run.status), run.request.webhook
        if order is not None and event in order.events:
            self._add(order, event, run.run_id, run.end_time or run.last_update, run_message(run, order))

    def _add_batch(self, batch: Batch) -> None:
        order = batch.webhook
        if order is None:
            return
        progress = progress_of(batch, self._tools.store.of_batch(batch.batch_id), now())
        outputs = list(islice(self._outputs(batch.batch_id), MOST_OUTPUTS_TOLD))
        ended_at = progress.end_time or batch.created_at
        content = batch_message(progress, outputs, order)
        self._add(order, NotifiedEvent.BATCH_COMPLETED, batch.batch_id, ended_at, content)

    def _outputs(self, batch_id: str) -> Iterator[tuple[str, int, OutputFile]]:
        for run in self._tools.store.of_batch(batch_id):
            for number, output in enumerate(self._tools.store.outputs(run.run_id) or ()):
                yield run.run_id, number, output

    def _add(
        self,
        order: WebhookOrder,
        event: NotifiedEvent,
        subject_id: str,
        at: datetime,
        content: dict[str, Any],
    ) -> None:
        message_id = delivery_id_of(at, f"{subject_id}: {event}")
        body = event_body(event, at, content)
        self._tools.outbox.add(order.url, body, subject_id, message_id, message_id=message_id)


def run_message(run: Run, order: WebhookOrder) -> dict[str, Any]:
    """Returns the content of a message about a run: its document, and the URLs of its outputs here."""
    outputs = [(run.run_id, number, output) for number, output in enumerate(run.outputs)]
    return {
        "workflow_id": run.run_id,
        "run": progress_document(run),
        "outputs": list(_output_links(outputs, order)),
        "outputs_url": f"{order.server_url}/comfyui/workflow/{run.run_id}/outputs",
    }


def batch_message(
    progress: BatchProgress, outputs: Sequence[tuple[str, int, OutputFile]], order: WebhookOrder
) -> dict[str, Any]:
    """Returns the content of a message about a batch: its document, and the URLs of its first outputs."""
    batch_id = progress.batch.batch_id
    return {
        "batch_id": batch_id,
        "batch": batch_document(progress),
        "outputs": list(_output_links(outputs, order)),
        "outputs_url": f"{order.server_url}/comfyui/workflow/batch/{batch_id}/outputs",
    }


def _output_links(
    outputs: Sequence[tuple[str, int, OutputFile]], order: WebhookOrder
) -> Iterator[dict[str, Any]]:
    for run_id, number, output in outputs:
        url = f"{order.server_url}/comfyui/workflow/{run_id}/outputs/{number}"
        yield {
            "workflow_id": run_id,
            "number": number,
            "filename": output.filename,
            "file_type": output.file_type.value,
            "size_bytes": output.size_bytes,
            "url": url if output.is_downloaded else None,
            "error": output.error,
        }


def _has_webhook(run: Run) -> bool:
    return run.request.webhook is not None or run.request.batch_webhook is not None


def _subject_of(run: Run) -> str:
    """Returns the id under which the notification is pending: that of the batch, if the run has one."""
    return run.request.batch_id or run.run_id
