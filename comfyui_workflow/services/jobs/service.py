"""Jobs: ordered, looked at, waited for, cancelled, taken up again, forgotten after their time."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from comfyui_workflow.errors import JobNotFound, RunConflict, RunNotFound, StoreError, UrlRefused
from comfyui_workflow.runs.events import RunCancelled
from comfyui_workflow.runs.job import (
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
from comfyui_workflow.services.jobs.deadlines import Timer
from comfyui_workflow.services.jobs.expiry import JobExpiry, with_verdict
from comfyui_workflow.services.jobs.finalizer import FinalizerTools, JobFinalizer, WebhookOutbox
from comfyui_workflow.services.jobs.image_downloads import FetchUrl, ImageFetcher
from comfyui_workflow.services.jobs.presenter import Presenters
from comfyui_workflow.services.jobs.view import DeliveredFile, JobView, has_output, output_of
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.storage.base import Send
from comfyui_workflow.stores.base import JobStore
from comfyui_workflow.stores.damage import DamageReport
from comfyui_workflow.stores.journal import RunJournal, now

log = logging.getLogger(__name__)

STOP_S = 1.0
_JOB_MENDED = (
    "The job was made anew of its run. Its webhook, its own bucket and images from the web that were still "
    "missing are lost with the record: ask for its status instead of waiting for the webhook"
)
AGAIN_AFTER = timedelta(seconds=5)
"""Where the local disk did not take it."""


class ImageRefused(UrlRefused):
    """An image that is named by its URL may not be fetched from there. The sentence begins with its name."""


class JobNotRetryable(RunConflict):
    """A job in this status is not taken up again."""

    def __init__(self, status: JobStatus) -> None:
        super().__init__(
            f"Only a job that has failed or timed out can be retried: this one is {status.value}"
        )
        self.status = status


class JobService:
    """Every method may be called from any thread, and none but `wait` waits for anything."""

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
        bucket: Bucket | None = None,
        refresh: Callable[[Run], None] | None = None,
    ) -> None:
        """`check_url` says at once whether a client may send us somewhere, `send` is the way to its bucket.
        `refresh` is called after each job, with its run."""
        self._journal = journal
        self._service = service
        self._store = store
        self._refresh = refresh
        self._check_url = check_url
        self._changed = threading.Condition()
        self._is_stopping = False
        self._deadlines = Timer()
        self._endings = JobFinalizer(
            FinalizerTools(
                store=store,
                journal=journal,
                outbox=outbox,
                presenters=presenters,
                bucket=bucket,
                send=send,
                told=self._told,
                again=self._put_later,
            )
        )
        self._lifetimes = JobExpiry(
            store=store,
            deadlines=self._deadlines,
            look=self.get,
            cancel_run=self._cancel_run,
            ended=self._endings.put,
        )
        self._images = ImageFetcher(
            store=store,
            journal=journal,
            deadlines=self._deadlines,
            fetch=fetch,
            start=self._start_run,
        )
        self._retrying = threading.Lock()
        journal.listen(self._heed)
        journal.listen_for_reopening(self._heed_reopening)

    def submit(self, order: JobOrder) -> JobView:
        """Both on disk before this returns, and before the run is started. Raises: UrlRefused, ImageRefused,
        StoreError; then nothing was ordered."""
        for fetch in order.fetches:
            self._check_image(fetch)
        for url in _urls(order):
            self._check_url(url)
        (run,) = self._service.keep_all([order.request])
        job = Job(
            job_id=(SYNC_PREFIX if order.is_sync else "") + run.run_id,
            run_id=run.run_id,
            endpoint=order.endpoint,
            presenter=order.presenter,
            created_at=run.queue_time,
            expires_at=run.queue_time + timedelta(seconds=order.ttl_s),
            webhook=order.webhook,
            execution_timeout_s=order.execution_timeout_s,
            bucket=order.bucket,
            fetches=order.fetches,
        )
        try:
            if order.comfy_org_api_key is not None:
                self._journal.keep_api_key(run.run_id, order.comfy_org_api_key)
            self._store.add(job)
        except StoreError:
            ended = RunCancelled(message="The job could not be saved, so it was not started")
            self._journal.record(run.run_id, ended)
            raise
        self._lifetimes.watch(job)
        self._begin(job, run)
        self._endings.put(job.job_id)  # it may have been cancelled already, as a run
        return JobView(job=job, run=run)

    def get(self, job_id: str) -> JobView:
        """Raises: JobNotFound."""
        job = self._store.get(job_id)
        try:
            return JobView(job=job, run=self._service.get(job.run_id))
        except RunNotFound as error:
            raise JobNotFound(f"The run of the job is not there any more: {job_id}") from error

    def wait(self, job_id: str, timeout_s: float) -> JobView:
        """When it is final, or as it is when the time is over. Raises: JobNotFound."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_stopping or self._store.get(job_id).final is not None, timeout_s
            )
        return self.get(job_id)

    def take_outputs(self, job_id: str) -> tuple[JobView, tuple[DeliveredFile, ...]]:
        """Those that nobody has taken yet: each is handed out once. None before it is final.
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
        """As `take_outputs`, and takes none. Raises: JobNotFound."""
        view = self.get(job_id)
        return view, _streamed(view)[view.job.streamed :]

    def cancel(self, job_id: str) -> JobView:
        """Said is done: whatever its run still does, the job stays cancelled. One that is final stays as it
        is. Raises: JobNotFound, StoreError."""
        job = self._store.update(job_id, lambda job: with_verdict(job, job.run_id, JobStatus.CANCELLED))
        if job.final is None:
            self._cancel_run(job.run_id, None)
            self._endings.put(job.job_id)
        return self.get(job_id)

    def retry(self, job_id: str) -> JobView:
        """Takes up what can be taken up; where its prompt would only fail again or was cut off, there is a
        new run. Raises: JobNotFound; JobNotRetryable unless it has failed or timed out; StoreError."""
        with self._retrying:  # of two at once the second finds it in the queue
            view = self.get(job_id)
            if view.job.final not in (JobStatus.FAILED, JobStatus.TIMEOUT):
                raise JobNotRetryable(view.status)
            run = view.run if view.run.status is RunStatus.COMPLETED else self._run_again(view)
            job = self._reopen(job_id, run.run_id)
            if run.run_id != view.run.run_id:
                self._begin(job, run)
        return self.get(job_id)

    def purge(self, endpoint: str) -> int:
        """How many that had not begun were cancelled, the newest first. Raises: StoreError."""
        jobs = [job for job in self._unfinished() if job.endpoint == endpoint]
        return sum(self._is_purged(job) for job in reversed(jobs))

    def counts(self, endpoint: str) -> Mapping[JobStatus | str, int]:
        """By status, and `retried`."""
        jobs = [job for job in self._store.all() if job.endpoint == endpoint]
        counted: Counter[JobStatus | str] = Counter(job.final for job in jobs if job.final is not None)
        counted.update(view.status for view in self._views(job for job in jobs if job.final is None))
        counted["retried"] = sum(job.retries for job in jobs)
        return counted

    def mend(self, damage: DamageReport) -> None:
        """Before the unfinished runs are taken up: jobs with a damaged record, made anew of their runs."""
        for name, damaged in sorted(self._store.unreadable.items()):
            try:
                run = self._service.get(name)
            except RunNotFound:
                outcome = "No run of this job is there, so it is not known any more"
            else:
                self._store.replace_unreadable(job_of_run(run, now()))
                outcome = _JOB_MENDED
            damage.add(damaged.path, damaged.reason, outcome)

    def held_back(self) -> frozenset[str]:
        """Runs that must not be started yet."""
        return frozenset(job.run_id for job in self._unfinished() if job.fetches)

    def start(self) -> None:
        """After the unfinished runs are taken up: what a server that died has left half done."""
        underway = {run.run_id for run in self._service.unfinished()}
        for job in self._store.all():
            self._lifetimes.watch(job)
            if job.final is JobStatus.FAILED and job.run_id in underway:
                self._follow(job.job_id, job.run_id)
            elif job.final is None:
                if job.verdict is not None:
                    self._cancel_run(job.run_id, None)
                self._endings.put(job.job_id)
                if job.fetches:
                    self._images.put(job)
        self._endings.start()
        self._images.start()
        self._deadlines.start()

    def end_waits(self) -> None:
        """Whoever waits, now or later, is answered at once."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Whoever waits is answered. What is not done is done at the next start."""
        self.end_waits()
        self._deadlines.stop(STOP_S)
        self._images.stop()
        self._endings.stop(STOP_S)

    def _check_image(self, fetch: ImageDownload) -> None:
        """Raises: ImageRefused, naming it."""
        try:
            self._check_url(fetch.url)
        except UrlRefused as error:
            raise ImageRefused(f"{Path(fetch.path).name}: {error}") from error

    def _unfinished(self) -> list[Job]:
        return [job for job in self._store.all() if job.final is None]

    def _is_purged(self, job: Job) -> bool:
        """Whether it was in the queue until now. Raises: StoreError."""
        try:
            if job.verdict is not None or not self._service.cancel_unless_begun(job.run_id):
                return False
            cancelled = partial(with_verdict, run_id=job.run_id, verdict=JobStatus.CANCELLED)
            self._endings.put(self._store.update(job.job_id, cancelled).job_id)
        except (JobNotFound, RunNotFound) as error:  # its time was over just now
            log.debug("%s: %s", job.job_id, error)
            return False
        return True

    def _views(self, jobs: Iterable[Job]) -> Iterator[JobView]:
        """Of those that are still known."""
        for job in jobs:
            with suppress(JobNotFound):
                yield self.get(job.job_id)

    def _begin(self, job: Job, run: Run) -> None:
        if job.fetches:
            self._images.put(job)
        else:
            self._service.start([run])

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
                if view.job.final is JobStatus.FAILED and not run.is_finished:  # by somebody, just now
                    raise JobNotRetryable(status_of(replace(view.job, final=None), run)) from error
        return self._service.keep_all([view.run.request])[0]

    def _reopen(self, job_id: str, run_id: str) -> Job:
        """It is carried out by that run. Raises: JobNotFound, StoreError."""
        job = self._store.update(job_id, partial(_reopened, run_id=run_id))
        self._lifetimes.watch(job)
        self._endings.put(job_id)
        return job

    def _cancel_run(self, run_id: str, reason: str | None) -> None:
        try:
            self._service.cancel(run_id, reason)
        except (RunConflict, RunNotFound) as error:
            log.debug("%s: %s", run_id, error)

    # what happens to a job by itself

    def _heed(self, run: Run) -> None:
        job = self._store.of_run(run.run_id)
        if job is not None:
            self._endings.put(job.job_id)

    def _heed_reopening(self, run: Run) -> None:
        job = self._store.of_run(run.run_id)
        if job is not None:
            self._follow(job.job_id, run.run_id)

    def _follow(self, job_id: str, run_id: str) -> None:
        """Its run was taken up as one, and takes its job along."""
        try:
            if not self._service.get(run_id).is_finished:
                self._reopen(job_id, run_id)
        except (JobNotFound, RunNotFound) as error:
            log.debug("%s: %s", job_id, error)
        except StoreError as error:
            log.error("%s goes on, but that cannot be saved: %s", job_id, error)
            self._deadlines.at(now() + AGAIN_AFTER, lambda: self._follow(job_id, run_id))

    def _told(self, view: JobView) -> None:
        with self._changed:
            self._changed.notify_all()
        if self._refresh is not None:
            self._refresh(view.run)

    def _put_later(self, job_id: str, delay_s: float) -> None:
        self._deadlines.at(now() + timedelta(seconds=delay_s), lambda: self._endings.put(job_id))


def _streamed(view: JobView) -> tuple[DeliveredFile, ...]:
    return output_of(view).files if has_output(view) and view.job.final is not None else ()


def _urls(order: JobOrder) -> Iterator[str]:
    """That a client sends us to, besides its images."""
    if order.webhook is not None:
        yield order.webhook
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
