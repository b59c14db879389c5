"""Service for jobs: submit, read, wait, cancel, retry, and remove after their time to live."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from comfyui_workflow.concurrency import KeyedLocks
from comfyui_workflow.errors import JobNotFound, RunConflict, RunNotFound, StoreError, UrlRefused
from comfyui_workflow.runs.events import RunCancelled, RunFailed
from comfyui_workflow.runs.job import (
    INVALID_ORDER,
    SYNC_PREFIX,
    Bucket,
    ImageDownload,
    Job,
    JobOrder,
    JobStatus,
    job_of_run,
    status_of,
)
from comfyui_workflow.runs.model import Run, RunStatus
from comfyui_workflow.services.jobs.expiry import JobExpiry, with_verdict
from comfyui_workflow.services.jobs.finalizer import FinalizerTools, JobFinalizer, WebhookOutbox
from comfyui_workflow.services.jobs.image_downloads import FetchUrl, ImageFetcher
from comfyui_workflow.services.jobs.presenter import Presenters
from comfyui_workflow.services.jobs.timer import Timer
from comfyui_workflow.services.jobs.view import DeliveredFile, JobView, has_output, output_of
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.storage.base import Send
from comfyui_workflow.stores.base import JobStore
from comfyui_workflow.stores.damage import DamageReport
from comfyui_workflow.stores.journal import RunJournal, now

log = logging.getLogger(__name__)

STOP_S = 1.0
_JOB_REBUILT = (
    "The job was rebuilt from its run. Its webhook, its own bucket and images from the web that were still "
    "missing are lost with the record: ask for its status instead of waiting for the webhook"
)
RECENT = timedelta(minutes=10)
"""Time for which events of a finished prompt may still arrive."""
AGAIN_AFTER = timedelta(seconds=5)
"""Delay before a retry when the local disk did not accept a record."""


class ImageRefused(UrlRefused):
    """The URL of an image is not allowed. The message begins with the name of the image."""


class JobNotRetryable(RunConflict):
    """A job in this status cannot be retried."""

    def __init__(self, status: JobStatus) -> None:
        super().__init__(
            f"Only a job that has failed or timed out can be retried: this one is {status.value}"
        )
        self.status = status


class JobService:
    """Service for jobs. Thread-safe. Only `wait` blocks."""

    def __init__(
        self,
        *,
        journal: RunJournal,
        service: RunService,
        store: JobStore,
        outbox: WebhookOutbox,
        presenters: Presenters,
        check_url: Callable[[str], None],
        send: Send,
        fetch: FetchUrl,
        check_image_url: Callable[[str], None] | None = None,
        bucket: Bucket | None = None,
        refresh: Callable[[Run], None] | None = None,
    ) -> None:
        """`check_url` raises UrlRefused for a URL that a client may not name; it sends no request.
        `check_image_url`: the same for images. `send`
        sends requests to the bucket of a client. `refresh` is called with the run of each finished job."""
        self._journal = journal
        self._service = service
        self._store = store
        self._refresh = refresh
        self._check_url = check_url
        self._check_image_url = check_image_url or check_url
        self._changed = threading.Condition()
        self._is_stopping = False
        self._deadlines = Timer()
        self._finalizer = JobFinalizer(
            FinalizerTools(
                store=store,
                journal=journal,
                outbox=outbox,
                presenters=presenters,
                bucket=bucket,
                send=send,
                on_final=self._on_final,
                put_later=self._put_later,
            )
        )
        self._expiry = JobExpiry(
            store=store,
            deadlines=self._deadlines,
            get_view=self.get,
            cancel_run=self._cancel_run,
            on_verdict=self._finalizer.put,
        )
        self._images = ImageFetcher(
            store=store,
            journal=journal,
            deadlines=self._deadlines,
            fetch=fetch,
            start=self._start_run,
        )
        self._retrying = threading.Lock()
        self._submitting = KeyedLocks()
        journal.listen(self._on_run_finished)
        journal.listen_for_reopening(self._on_run_reopened)

    def submit(self, order: JobOrder, idempotency_key: str | None = None) -> JobView:
        """Saves a job and its run, then starts the run or the download of its images. The run of an order
        with a `refusal` fails at once.

        Both are on disk before this returns, and before the run is started. `idempotency_key`: 16 hexadecimal
        digits. If a job was submitted with the same key before, returns that job instead.
        Raises: UrlRefused, ImageRefused, StoreError; then nothing was submitted."""
        for fetch in order.fetches:
            self._check_image(fetch)
        for url in _urls(order):
            self._check_url(url)
        if idempotency_key is None:
            return self._submit(order)
        with self._submitting.of(idempotency_key):
            return self.submitted_before(idempotency_key) or self._submit(order, idempotency_key)

    def submitted_before(self, idempotency_key: str | None) -> JobView | None:
        """Returns the job that was submitted with this key; None without a key, and for an expired job."""
        run = self._service.submitted_before(idempotency_key)
        if run is None:
            return None
        try:
            return self.get(run.run_id)
        except JobNotFound:
            return None

    def _submit(self, order: JobOrder, idempotency_key: str | None = None) -> JobView:
        left = self._left_without_job(idempotency_key)
        run = left or self._service.save_all([order.request], [order.comfy_org_api_key], idempotency_key)[0]
        job = _new_job(order, run)
        if left is not None:
            job = replace(job, fetches=(), expires_at=now() + timedelta(seconds=order.ttl_s))
        try:
            self._store.add(job)
        except StoreError:
            ended = RunCancelled(message="The job could not be saved, so it was not started")
            self._journal.record(run.run_id, ended)
            raise
        self._expiry.watch(job)
        if left is None:
            self._begin(job, run)
        self._finalizer.put(job.job_id)  # the run may have been cancelled directly in the meantime
        return JobView(job=job, run=run)

    def _left_without_job(self, idempotency_key: str | None) -> Run | None:
        """Returns the run that a server has saved with this key before it crashed: its job was not saved, and
        the restarted server has resumed the run. A run that was cancelled is not taken."""
        run = self._service.submitted_before(idempotency_key)
        return None if run is None or run.status is RunStatus.CANCELLED else run

    def get(self, job_id: str) -> JobView:
        """Returns the current state of a job. Raises: JobNotFound."""
        job = self._store.get(job_id)
        try:
            return JobView(job=job, run=self._service.get(job.run_id))
        except RunNotFound as error:
            raise JobNotFound(f"The run of the job no longer exists: {job_id}") from error

    def named(self, client_id: str, presenter: str) -> list[JobView]:
        """Returns the jobs of an API with this id of the client, newest first. A job is also found by its
        own id."""
        found = (job for job in self._store.all() if job.presenter == presenter)
        named = [job for job in found if client_id in (job.client_id, job.job_id)]
        return sorted(self._views(named), key=lambda view: view.job.created_at, reverse=True)

    def client_id_of_prompt(self, prompt_id: str, presenter: str) -> str | None:
        """Returns the id that a client gave to a prompt of ComfyUI, if it is of an unfinished or a recent job
        of this API."""
        since = now() - RECENT
        jobs = [
            job
            for job in self._store.all()
            if job.presenter == presenter and (job.final is None or job.created_at > since)
        ]
        found = (view.job.client_id for view in self._views(jobs) if view.run.prompt_id == prompt_id)
        return next(found, None)

    def unfinished_count(self, presenter: str) -> int:
        """Returns the number of jobs of an API that are not final."""
        return sum(job.presenter == presenter for job in self._unfinished())

    def wait(self, job_id: str, timeout_s: float) -> JobView:
        """Waits until the job is final, and returns it. After the timeout, returns its current state.

        Raises: JobNotFound."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_stopping or self._store.get(job_id).final is not None, timeout_s
            )
        return self.get(job_id)

    def take_outputs(self, job_id: str) -> tuple[JobView, tuple[DeliveredFile, ...]]:
        """Returns the outputs that were not returned before: each is returned once. Empty until the job is
        final.

        Raises: JobNotFound, StoreError."""
        view = self.get(job_id)
        files = _streamed(view)
        before: list[int] = []

        def taken(job: Job) -> Job:
            before[:] = [job.streamed]
            return replace(job, streamed=max(job.streamed, len(files)))

        self._store.update(job_id, taken)
        return view, files[before[0] :]

    def outputs_left(self, job_id: str) -> tuple[JobView, tuple[DeliveredFile, ...]]:
        """Returns the same as `take_outputs`, but marks no output as taken. Raises: JobNotFound."""
        view = self.get(job_id)
        return view, _streamed(view)[view.job.streamed :]

    def cancel(self, job_id: str) -> JobView:
        """Cancels a job at once: it stays cancelled, whatever its run still does. A final job does not
        change.

        Raises: JobNotFound, StoreError."""
        job = self._store.update(job_id, lambda job: with_verdict(job, job.run_id, JobStatus.CANCELLED))
        if job.final is None:
            self._cancel_run(job.run_id, None)
            self._finalizer.put(job.job_id)
        return self.get(job_id)

    def retry(self, job_id: str) -> JobView:
        """Retries a failed or timed out job.

        Continues its run if possible. Starts a new run if the prompt would only fail again, or was cut off.
        Raises: JobNotFound; JobNotRetryable unless the job has failed or timed out; StoreError."""
        with self._retrying:  # of two concurrent retries the second finds the job in the queue
            view = self.get(job_id)
            if view.job.final not in (JobStatus.FAILED, JobStatus.TIMEOUT):
                raise JobNotRetryable(view.status)
            run = view.run if view.run.status is RunStatus.COMPLETED else self._run_again(view)
            job = self._reopen(job_id, run.run_id)
            if run.run_id != view.run.run_id:
                self._begin(job, run)
        return self.get(job_id)

    def purge(self, endpoint: str) -> int:
        """Cancels the jobs of an endpoint that have not started, newest first. Returns their number.

        Raises: StoreError."""
        jobs = [job for job in self._unfinished() if job.endpoint == endpoint]
        return sum(self._cancel_if_queued(job) for job in reversed(jobs))

    def counts(self, endpoint: str) -> Mapping[JobStatus | str, int]:
        """Returns the number of jobs by status, and the number of retries under `retried`."""
        jobs = [job for job in self._store.all() if job.endpoint == endpoint]
        counted: Counter[JobStatus | str] = Counter(job.final for job in jobs if job.final is not None)
        counted.update(view.status for view in self._views(job for job in jobs if job.final is None))
        counted["retried"] = sum(job.retries for job in jobs)
        return counted

    def rebuild_damaged(self, damage: DamageReport) -> None:
        """Rebuilds jobs with a damaged record from their runs.

        Called at start, before the unfinished runs are resumed."""
        for name, damaged in sorted(self._store.unreadable.items()):
            try:
                run = self._service.get(name)
            except RunNotFound:
                outcome = "No run of this job exists, so the job is lost"
            else:
                self._store.replace_unreadable(job_of_run(run, now()))
                outcome = _JOB_REBUILT
            damage.add(damaged.path, damaged.reason, outcome)

    def held_back(self) -> frozenset[str]:
        """Returns the ids of runs that must not start: their images are not downloaded yet, or their order is
        invalid."""
        return frozenset(job.run_id for job in self._unfinished() if job.fetches or job.refusal)

    def start(self) -> None:
        """Continues what a crashed server left incomplete, and starts the threads.

        Called after the unfinished runs are resumed."""
        underway = {run.run_id for run in self._service.unfinished()}
        for job in self._store.all():
            self._expiry.watch(job)
            if job.final is JobStatus.FAILED and job.run_id in underway:
                self._reopen_with_run(job.job_id, job.run_id)
            elif job.final is None:
                if job.verdict is not None:
                    self._cancel_run(job.run_id, None)
                self._finalizer.put(job.job_id)
                if job.refusal:
                    self._refuse(job)
                elif job.fetches:
                    self._images.put(job)
        self._finalizer.start()
        self._images.start()
        self._deadlines.start()

    @property
    def is_stopping(self) -> bool:
        """True after `end_waits`: calls of `wait` return at once."""
        return self._is_stopping

    def end_waits(self) -> None:
        """Ends all calls of `wait`, current and future ones, at once."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Ends all calls of `wait` and stops the threads. Unfinished work is done after the next start."""
        self.end_waits()
        self._deadlines.stop(STOP_S)
        self._images.stop()
        self._finalizer.stop(STOP_S)

    def _check_image(self, fetch: ImageDownload) -> None:
        """Raises: ImageRefused, with the name of the image."""
        try:
            self._check_image_url(fetch.url)
        except UrlRefused as error:
            raise ImageRefused(f"{Path(fetch.path).name}: {error}") from error

    def _unfinished(self) -> list[Job]:
        return [job for job in self._store.all() if job.final is None]

    def _cancel_if_queued(self, job: Job) -> bool:
        """Cancels a job if it is still queued. True if it was cancelled. Raises: StoreError."""
        try:
            if job.verdict is not None or not self._service.cancel_if_queued(job.run_id):
                return False
            cancelled = partial(with_verdict, run_id=job.run_id, verdict=JobStatus.CANCELLED)
            self._finalizer.put(self._store.update(job.job_id, cancelled).job_id)
        except (JobNotFound, RunNotFound) as error:  # its time to live has ended in the meantime
            log.debug("%s: %s", job.job_id, error)
            return False
        return True

    def _views(self, jobs: Iterable[Job]) -> Iterator[JobView]:
        """Yields the views of the jobs that still exist."""
        for job in jobs:
            with suppress(JobNotFound):
                yield self.get(job.job_id)

    def _begin(self, job: Job, run: Run) -> None:
        if job.refusal:
            self._refuse(job)
        elif job.fetches:
            self._images.put(job)
        else:
            self._service.start([run])

    def _refuse(self, job: Job) -> None:
        """Fails the run of a job whose order is invalid."""
        try:
            failed = RunFailed(code=INVALID_ORDER, message=job.refusal or "")
            self._journal.record(job.run_id, failed)
        except RunNotFound as error:
            log.debug("%s: %s", job.job_id, error)
        except StoreError as error:
            log.error("%s has failed, but that cannot be saved: %s", job.job_id, error)
            self._deadlines.at(now() + AGAIN_AFTER, lambda: self._refuse(job))

    def _start_run(self, run_id: str) -> None:
        try:
            run = self._service.get(run_id)
        except RunNotFound as error:
            log.debug("%s", error)
            return
        if not run.is_finished:
            self._service.start([run])

    def _run_again(self, view: JobView) -> Run:
        if not view.job.fetches:
            try:
                return self._service.retry(view.run.run_id)
            except RunConflict as error:
                log.debug("%s: %s", view.job.job_id, error)
                run = self._service.get(view.run.run_id)
                # another request has just retried it
                if view.job.final is JobStatus.FAILED and not run.is_finished:
                    raise JobNotRetryable(status_of(replace(view.job, final=None), run)) from error
        return self._service.save_all([view.run.request])[0]

    def _reopen(self, job_id: str, run_id: str) -> Job:
        """Reopens a job with `run_id` as its run. Raises: JobNotFound, StoreError."""
        job = self._store.update(job_id, partial(_reopened, run_id=run_id))
        self._expiry.watch(job)
        self._finalizer.put(job_id)
        return job

    def _cancel_run(self, run_id: str, reason: str | None) -> None:
        try:
            self._service.cancel(run_id, reason)
        except (RunConflict, RunNotFound) as error:
            log.debug("%s: %s", run_id, error)

    # callbacks of the journal, the timer and the finalizer

    def _on_run_finished(self, run: Run) -> None:
        job = self._store.of_run(run.run_id)
        if job is not None:
            self._finalizer.put(job.job_id)

    def _on_run_reopened(self, run: Run) -> None:
        job = self._store.of_run(run.run_id)
        if job is not None:
            self._reopen_with_run(job.job_id, run.run_id)

    def _reopen_with_run(self, job_id: str, run_id: str) -> None:
        """Reopens a job whose run was retried directly, without the job."""
        try:
            if not self._service.get(run_id).is_finished:
                self._reopen(job_id, run_id)
        except (JobNotFound, RunNotFound) as error:
            log.debug("%s: %s", job_id, error)
        except StoreError as error:
            log.error("%s was reopened, but that cannot be saved: %s", job_id, error)
            self._deadlines.at(now() + AGAIN_AFTER, lambda: self._reopen_with_run(job_id, run_id))

    def _on_final(self, view: JobView) -> None:
        with self._changed:
            self._changed.notify_all()
        if self._refresh is not None:
            self._refresh(view.run)

    def _put_later(self, job_id: str, delay_s: float) -> None:
        self._deadlines.at(now() + timedelta(seconds=delay_s), lambda: self._finalizer.put(job_id))


def _new_job(order: JobOrder, run: Run) -> Job:
    return Job(
        job_id=(SYNC_PREFIX if order.is_sync else "") + run.run_id,
        run_id=run.run_id,
        endpoint=order.endpoint,
        presenter=order.presenter,
        created_at=run.queue_time,
        expires_at=run.queue_time + timedelta(seconds=order.ttl_s),
        webhook=next(iter(order.webhooks), None),
        more_webhooks=order.webhooks[1:],
        execution_timeout_s=order.execution_timeout_s,
        bucket=order.bucket,
        fetches=order.fetches,
        client_id=order.client_id,
        details=order.details,
        is_delivered_here=order.is_delivered_here,
        refusal=order.refusal,
    )


def _streamed(view: JobView) -> tuple[DeliveredFile, ...]:
    return output_of(view).files if has_output(view) and view.job.final is not None else ()


def _urls(order: JobOrder) -> Iterator[str]:
    """Yields the URLs in an order to which this server will send requests, except its images."""
    yield from order.webhooks
    if order.bucket is not None:
        yield order.bucket.endpoint_url


def _reopened(job: Job, run_id: str) -> Job:
    is_same = run_id == job.run_id
    if is_same and job.final is None:
        return job
    uploads = tuple(upload for upload in job.uploads if upload.url and is_same)
    return replace(
        job,
        run_id=run_id,
        verdict=None,
        judged_at=None,
        final=None,
        error=None,
        error_code=None,
        uploads=uploads,
        streamed=0,
        retries=job.retries + 1,
    )
