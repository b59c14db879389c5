"""Time limits of jobs: the execution timeout, and the time to live after which a job is removed."""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from comfyui_workflow.errors import JobNotFound, StoreError
from comfyui_workflow.runs.job import Job, JobStatus
from comfyui_workflow.services.jobs.timer import Timer
from comfyui_workflow.services.jobs.view import JobView
from comfyui_workflow.stores.base import JobStore
from comfyui_workflow.stores.journal import now

log = logging.getLogger(__name__)

AGAIN_AFTER_S = 5.0
"""Delay before a retry when the local disk did not accept a record."""

LOOK_AGAIN_S = 1.0
"""Interval of checks while the connection to the instance is lost: the prompt may have ended in time."""


class JobExpiry:
    """Schedules and enforces the time limits of jobs."""

    def __init__(
        self,
        *,
        store: JobStore,
        deadlines: Timer,
        get_view: Callable[[str], JobView],
        cancel_run: Callable[[str, str], None],
        on_verdict: Callable[[str], None],
    ) -> None:
        """`cancel_run(run_id, reason)` cancels a run. `on_verdict(job_id)` is called after each verdict."""
        self._store = store
        self._deadlines = deadlines
        self._get_view = get_view
        self._cancel_run = cancel_run
        self._on_verdict = on_verdict

    def watch(self, job: Job) -> None:
        """Schedules the checks of both limits."""
        self._deadlines.at(job.expires_at, lambda: self._expire(job.job_id))
        if job.execution_timeout_s is not None and job.final is None:
            self._deadlines.at(now(), lambda: self._check_timeout(job.job_id))

    def _expire(self, job_id: str) -> None:
        try:
            job = self._store.get(job_id)
            if job.final is None:
                self._cancel_run(job.run_id, "The time to live (ttl) of its job is over")
            self._store.remove(job_id)
        except JobNotFound:
            return
        except StoreError as error:
            log.error("%s is over, but that cannot be saved: %s", job_id, error)
            self._deadlines.at(now() + timedelta(seconds=AGAIN_AFTER_S), lambda: self._expire(job_id))

    def _check_timeout(self, job_id: str) -> None:
        """Ends the job if its execution timeout is over. Otherwise schedules the next check."""
        try:
            view = self._get_view(job_id)
        except JobNotFound:
            return
        limit_s = view.job.execution_timeout_s
        if limit_s is None or view.job.final or view.run.is_finished or view.run.is_cancel_requested:
            return
        due = (view.run.executes_since or now()) + timedelta(seconds=limit_s)
        if due <= now():
            if self._save_timeout(view):
                return
            due = now() + timedelta(seconds=AGAIN_AFTER_S)
        elif view.run.contact_lost_at is not None:  # the prompt may have ended in time
            due = now() + timedelta(seconds=LOOK_AGAIN_S)
        self._deadlines.at(due, lambda: self._check_timeout(job_id))

    def _save_timeout(self, view: JobView) -> bool:
        """Gives the job the verdict TIMEOUT and cancels its run. False if that could not be saved."""
        job_id, run_id = view.job.job_id, view.run.run_id
        try:
            job = self._store.update(job_id, lambda job: with_verdict(job, run_id, JobStatus.TIMEOUT))
            self._cancel_run(
                run_id, f"The execution timeout of its job is over ({job.execution_timeout_s:g} s)"
            )
        except StoreError as error:
            log.error("%s is over, but that cannot be saved: %s", job_id, error)
            return False
        except JobNotFound:
            return True
        self._on_verdict(job_id)
        return True


def with_verdict(job: Job, run_id: str, verdict: JobStatus) -> Job:
    """Returns the job with a verdict. Unchanged if the job is final, or belongs to another run by now.

    A cancellation is never replaced by another verdict."""
    is_past = job.final is not None or run_id != job.run_id
    if is_past or job.verdict in (verdict, JobStatus.CANCELLED):
        return job
    return replace(job, verdict=verdict, judged_at=now())
