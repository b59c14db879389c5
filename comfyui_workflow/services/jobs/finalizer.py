"""Finalization of jobs after their runs: upload of outputs, webhook to the client, final status.

How it works. A job is put into the queue when its run may have ended or when it has a verdict. A few threads
take jobs from the queue; one job is handled by one thread at a time. For a job that has ended, its outputs
are uploaded to the bucket, its webhook is saved in the outbox, and only then it is saved as final. Each step
may be repeated after an error or a restart: an uploaded output is not uploaded again, and a webhook has the
same id each time.
"""

import hashlib
import logging
import mimetypes
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from comfyui_workflow.errors import (
    JobNotFound,
    RunNotFound,
    StorageError,
    StoreError,
    UrlRefused,
)
from comfyui_workflow.runs.job import NOT_DELIVERED, Bucket, Job, JobStatus, Upload
from comfyui_workflow.runs.model import OutputFile, Run, RunStatus
from comfyui_workflow.runs.webhook import delivery_id_of
from comfyui_workflow.services.jobs.presenter import Presenters
from comfyui_workflow.services.jobs.view import JobView, final_status
from comfyui_workflow.storage.base import Send, Storage
from comfyui_workflow.stores.base import JobStore
from comfyui_workflow.stores.journal import RunJournal, now

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Number of threads."""
AGAIN_AFTER_S = 5.0
"""Delay before a retry when the local disk did not accept a record."""


class WebhookOutbox(Protocol):
    def add(
        self,
        url: str,
        body: Mapping[str, Any],
        run_id: str,
        delivery_id: str,
        *,
        message_id: str | None = None,
    ) -> object:
        """Saves a webhook for delivery. It is on disk before this returns. A known id is not added again.

        Raises: StoreError, UrlRefused."""


@dataclass(frozen=True, kw_only=True)
class FinalizerTools:
    store: JobStore
    journal: RunJournal
    outbox: WebhookOutbox
    presenters: Presenters
    bucket: Bucket | None
    """The bucket from the settings of the server."""
    send: Send
    """Sends requests to the bucket of a client."""
    on_final: Callable[[JobView], None]
    """Called when a job is final."""
    put_later: Callable[[str, float], None]
    """`put_later(job_id, seconds)` puts the job into the queue again after a delay."""


class JobFinalizer:
    """Finalizes jobs in its own threads, so that a slow bucket blocks no run and no request."""

    def __init__(self, tools: FinalizerTools) -> None:
        self._tools = tools
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._claimed: dict[str, bool] = {}
        self._threads = [
            threading.Thread(target=self._work, name=f"job ending {number}", daemon=True)
            for number in range(AT_ONCE)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """Stops the threads. Unfinished work is done after the next start."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            if thread.ident:
                thread.join(timeout_s / AT_ONCE)

    def put(self, job_id: str) -> None:
        """Queues a job whose run may have ended, or that has a verdict."""
        self._waiting.put(job_id)

    def _work(self) -> None:
        while (job_id := self._waiting.get()) is not None:
            if self._claim(job_id):
                self._try_to_finalize(job_id)
                if self._release(job_id):
                    self.put(job_id)

    def _claim(self, job_id: str) -> bool:
        """Claims a job for this thread. False if another thread has it: that thread handles it again.

        Only one thread at a time handles a job, so that its client is not notified twice."""
        with self._lock:
            is_free = job_id not in self._claimed
            self._claimed[job_id] = not is_free
            return is_free

    def _release(self, job_id: str) -> bool:
        """Releases a job. True if it was queued again in the meantime."""
        with self._lock:
            return self._claimed.pop(job_id)

    def _try_to_finalize(self, job_id: str) -> None:
        try:
            self._finalize(job_id)
        except JobNotFound:
            log.debug("%s no longer exists", job_id)
        except StoreError as error:
            log.error("%s has ended, but that cannot be saved: %s", job_id, error)
            self._tools.put_later(job_id, AGAIN_AFTER_S)
        except Exception as error:
            log.exception("%s: internal error", job_id)
            self._give_up(job_id, error)

    def _finalize(self, job_id: str) -> None:
        """Finalizes a job if its run has ended.

        Raises: JobNotFound, StoreError; then the next call continues."""
        job = self._tools.store.get(job_id)
        try:
            run = self._tools.journal.get(job.run_id)
        except RunNotFound:
            self._tools.store.update(
                job_id,
                lambda job: replace(job, final=JobStatus.FAILED, error="The run of the job no longer exists"),
            )
            return
        if not _is_to_finalize(job, run):
            return
        if _final(job, run) in (JobStatus.SUCCEEDED, JobStatus.FAILED):
            job = self._with_uploads(job, run)
        view = JobView(job=_finalized(job, run), run=run)
        self._notify_client(view)
        # replaces newer changes of the job: its client was notified of this state
        self._tools.store.update(job_id, lambda _: view.job)
        self._tools.on_final(view)

    def _with_uploads(self, job: Job, run: Run) -> Job:
        """Uploads the outputs that are not in the bucket yet, and saves the result in the job."""
        bucket = job.bucket or (None if job.is_delivered_here else self._tools.bucket)
        if bucket is None:
            return job
        done = {upload.number for upload in job.uploads if upload.url}
        missing = [
            (number, output)
            for number, output in enumerate(run.outputs)
            if output.is_downloaded and number not in done
        ]
        fresh = {upload.number: upload for upload in self._uploads(job, bucket, missing)}
        kept = [upload for upload in job.uploads if upload.number not in fresh]
        uploads = tuple(sorted([*kept, *fresh.values()], key=lambda upload: upload.number))
        return self._tools.store.update(job.job_id, lambda job: replace(job, uploads=uploads))

    def _uploads(self, job: Job, bucket: Bucket, outputs: list[tuple[int, OutputFile]]) -> Iterator[Upload]:
        for number, output in outputs:
            path = Path(output.local_path or "")
            try:
                content_type = mimetypes.guess_type(output.name)[0] or "application/octet-stream"
                storage = _storage(bucket, None if job.bucket is None else self._tools.send)
                url = storage.put(path, _key(bucket, job, output), content_type)
                yield Upload(number=number, url=url)
            except StorageError as error:
                log.warning("%s: %s", job.job_id, error)
                yield Upload(number=number, error=str(error))

    def _notify_client(self, view: JobView) -> None:
        """Saves the webhooks about the end of the job in the outbox."""
        if not view.job.webhooks:
            return
        presenter = self._tools.presenters.of(view.job)
        if presenter is None:
            log.error("%s: no webhook is sent: no API called %s", view.job.job_id, view.job.presenter)
            return
        for number, message in enumerate(presenter.webhook_messages(view, now())):
            delivery_id = _delivery_id(view, number)
            try:
                self._tools.outbox.add(
                    message.url, message.body, view.run.run_id, delivery_id, message_id=message.message_id
                )
            except UrlRefused as error:
                log.warning("%s: no webhook is sent: %s", view.job.job_id, error)

    def _give_up(self, job_id: str, error: Exception) -> None:
        def failed(job: Job) -> Job:
            return replace(job, final=JobStatus.FAILED, error=f"Internal error: {type(error).__name__}")

        try:
            job = self._tools.store.update(job_id, failed)
            self._tools.on_final(JobView(job=job, run=self._tools.journal.get(job.run_id)))
        except (JobNotFound, RunNotFound, StoreError) as trouble:
            log.error("%s: %s", job_id, trouble)


def _is_to_finalize(job: Job, run: Run) -> bool:
    """True if the job is to be finalized now.

    A failed job is finalized again if its run was retried directly, without the job, and has completed."""
    if job.final is not None:
        return job.final is JobStatus.FAILED and job.error is None and run.status is RunStatus.COMPLETED
    return job.verdict is JobStatus.CANCELLED or run.is_finished


def _final(job: Job, run: Run) -> JobStatus:
    """Returns the final status of the job.

    A job that has timed out counts as timed out only if its run was cancelled: a run with another end had
    ended in time, but the server learned of it later."""
    if job.verdict is JobStatus.TIMEOUT and run.status is not RunStatus.CANCELLED:
        return final_status(run)
    return job.verdict or final_status(run)


def _finalized(job: Job, run: Run) -> Job:
    """Returns the job with its final status. A job has failed if no output arrived in the bucket."""
    final = _final(job, run)
    if final is not job.verdict:
        job = replace(job, verdict=None, judged_at=None)
    errors = [upload.error for upload in job.uploads if upload.error]
    if final is JobStatus.SUCCEEDED and errors and len(errors) == len(job.uploads):
        return replace(job, final=JobStatus.FAILED, error="; ".join(errors), error_code=NOT_DELIVERED)
    is_over = final in (JobStatus.SUCCEEDED, JobStatus.CANCELLED)  # no retry will need the keys
    return replace(job, final=final, error=None, error_code=None, bucket=None if is_over else job.bucket)


def _delivery_id(view: JobView, number: int) -> str:
    """Returns the id of a webhook.

    It is the same each time the webhook is added again, until the job is final."""
    ended_at = view.job.judged_at or view.run.end_time or view.job.created_at
    message = f", message {number}" if number else ""
    return delivery_id_of(
        ended_at, f"{view.job.job_id}, try {view.job.retries}: {view.status.value}{message}"
    )


def _key(bucket: Bucket, job: Job, output: OutputFile) -> str:
    """Returns the key of an output in the bucket.

    It is the same in every attempt, so there are no duplicates."""
    letters = hashlib.sha256(repr(output.key).encode()).hexdigest()[:8]
    key = f"{job.job_id}/{letters}{Path(output.name).suffix}"
    return f"{bucket.object_path}/{key}" if bucket.object_path else key


@lru_cache(maxsize=32)
def _storage(bucket: Bucket, send: Send | None) -> Storage:
    from comfyui_workflow.storage.s3 import S3Storage  # noqa: PLC0415 - imports boto3, which only a bucket needs

    return S3Storage(bucket, send)
