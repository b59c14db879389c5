"""What comes after the run of a job: its outputs go to the bucket, its client is told, and it is final."""

import hashlib
import logging
import mimetypes
import queue
import threading
from collections.abc import Callable, Iterator
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
AGAIN_AFTER_S = 5.0
"""Where the local disk did not take it."""


class WebhookOutbox(Protocol):
    def add(self, url: str, body: dict[str, Any], run_id: str, delivery_id: str) -> object:
        """On disk when this returns; delivered sooner or later, and once under that id. Raises: StoreError,
        UrlRefused."""


@dataclass(frozen=True, kw_only=True)
class FinalizerTools:
    store: JobStore
    journal: RunJournal
    outbox: WebhookOutbox
    presenters: Presenters
    bucket: Bucket | None
    """Of the server."""
    send: Send
    """The way to a client's bucket."""
    told: Callable[[JobView], None]
    """The job is final."""
    again: Callable[[str, float], None]
    """`again(job_id, seconds)`: put it in once more then."""


class JobFinalizer:
    """Has threads of its own, so that a slow bucket keeps no run and no request waiting."""

    def __init__(self, tools: FinalizerTools) -> None:
        self._tools = tools
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._taken: dict[str, bool] = {}
        self._threads = [
            threading.Thread(target=self._work, name=f"job ending {number}", daemon=True)
            for number in range(AT_ONCE)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """What is not done is done at the next start."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            if thread.ident:
                thread.join(timeout_s / AT_ONCE)

    def put(self, job_id: str) -> None:
        """Its run may have ended, or there is a verdict."""
        self._waiting.put(job_id)

    def _work(self) -> None:
        while (job_id := self._waiting.get()) is not None:
            if self._take(job_id):
                self._try_to_end(job_id)
                if self._leave(job_id):
                    self.put(job_id)

    def _take(self, job_id: str) -> bool:
        """Of one job, one thread at a time: its client is not told twice. Who has it looks again then."""
        with self._lock:
            is_free = job_id not in self._taken
            self._taken[job_id] = not is_free
            return is_free

    def _leave(self, job_id: str) -> bool:
        """Whether it was put in again meanwhile."""
        with self._lock:
            return self._taken.pop(job_id)

    def _try_to_end(self, job_id: str) -> None:
        try:
            self._end(job_id)
        except JobNotFound:
            log.debug("%s is not known any more", job_id)
        except StoreError as error:
            log.error("%s has ended, but that cannot be saved: %s", job_id, error)
            self._tools.again(job_id, AGAIN_AFTER_S)
        except Exception as error:
            log.exception("%s: a bug of this server", job_id)
            self._give_up(job_id, error)

    def _end(self, job_id: str) -> None:
        """Raises: JobNotFound, StoreError; then everything that was not done is done by the next call."""
        job = self._tools.store.get(job_id)
        try:
            run = self._tools.journal.get(job.run_id)
        except RunNotFound:
            self._tools.store.update(
                job_id,
                lambda job: replace(job, final=JobStatus.FAILED, error="Its run is not there any more"),
            )
            return
        if not _is_to_end(job, run):
            return
        if _final(job, run) in (JobStatus.SUCCEEDED, JobStatus.FAILED):
            job = self._brought_away(job, run)
        view = JobView(job=_judged(job, run), run=run)
        self._tell_client(view)
        self._tools.store.update(job_id, lambda _: view.job)  # what its client was told is what counts
        self._tools.told(view)

    def _brought_away(self, job: Job, run: Run) -> Job:
        """What is there already is not brought again."""
        bucket = job.bucket or self._tools.bucket
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
                content_type = mimetypes.guess_type(output.filename)[0] or "application/octet-stream"
                storage = _storage(bucket, None if job.bucket is None else self._tools.send)
                url = storage.put(path, _key(job, output), content_type)
                yield Upload(number=number, url=url)
            except StorageError as error:
                log.warning("%s: %s", job.job_id, error)
                yield Upload(number=number, error=str(error))

    def _tell_client(self, view: JobView) -> None:
        if view.job.webhook is None:
            return
        presenter = self._tools.presenters.of(view.job)
        if presenter is None:
            log.error("%s: no API called %s is here to tell its client", view.job.job_id, view.job.presenter)
            return
        try:
            for number, body in enumerate(presenter.webhook_bodies(view, now())):
                self._tools.outbox.add(view.job.webhook, body, view.run.run_id, _delivery_id(view, number))
        except UrlRefused as error:
            log.warning("%s: its client is not told: %s", view.job.job_id, error)

    def _give_up(self, job_id: str, error: Exception) -> None:
        def failed(job: Job) -> Job:
            return replace(job, final=JobStatus.FAILED, error=f"Internal error: {type(error).__name__}")

        try:
            job = self._tools.store.update(job_id, failed)
            self._tools.told(JobView(job=job, run=self._tools.journal.get(job.run_id)))
        except (JobNotFound, RunNotFound, StoreError) as trouble:
            log.error("%s: %s", job_id, trouble)


def _is_to_end(job: Job, run: Run) -> bool:
    """A run that failed may have been taken up as one, without its job, and have come to a good end."""
    if job.final is not None:
        return job.final is JobStatus.FAILED and job.error is None and run.status is RunStatus.COMPLETED
    return job.verdict is JobStatus.CANCELLED or run.is_finished


def _final(job: Job, run: Run) -> JobStatus:
    """Who executed for too long is cancelled; what had ended by then, unseen perhaps, has ended in time."""
    if job.verdict is JobStatus.TIMEOUT and run.status is not RunStatus.CANCELLED:
        return final_status(run)
    return job.verdict or final_status(run)


def _judged(job: Job, run: Run) -> Job:
    """With its end. Where nothing arrived in the bucket, nothing was delivered."""
    final = _final(job, run)
    if final is not job.verdict:
        job = replace(job, verdict=None, judged_at=None)
    errors = [upload.error for upload in job.uploads if upload.error]
    if final is JobStatus.SUCCEEDED and errors and len(errors) == len(job.uploads):
        return replace(job, final=JobStatus.FAILED, error="; ".join(errors), error_code=NOT_DELIVERED)
    is_over = final in (JobStatus.SUCCEEDED, JobStatus.CANCELLED)  # no retry will need the keys
    return replace(job, final=final, error=None, error_code=None, bucket=None if is_over else job.bucket)


def _delivery_id(view: JobView, number: int) -> str:
    """The same however often the message is handed over, for as long as the job cannot be saved as final."""
    ended_at = view.job.judged_at or view.run.end_time or view.job.created_at
    message = f", message {number}" if number else ""
    return delivery_id_of(
        ended_at, f"{view.job.job_id}, try {view.job.retries}: {view.status.value}{message}"
    )


def _key(job: Job, output: OutputFile) -> str:
    """The same at every try, so that nothing is there twice."""
    letters = hashlib.sha256(repr(output.key).encode()).hexdigest()[:8]
    return f"{job.job_id}/{letters}{Path(output.filename).suffix}"


@lru_cache(maxsize=32)
def _storage(bucket: Bucket, send: Send | None) -> Storage:
    from comfyui_workflow.storage.s3 import S3Storage  # noqa: PLC0415 - most servers have no bucket for boto3

    return S3Storage(bucket, send)
