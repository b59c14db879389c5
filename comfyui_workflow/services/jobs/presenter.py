"""The seam between jobs and the API that ordered them: who words what a client is told.

The record of a job has the name of its presenter, so that a server that was restarted finds it again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from comfyui_workflow.runs.job import Job
from comfyui_workflow.services.jobs.view import JobView


class Presenter(Protocol):
    """Words a job as its API does. May be called from any thread."""

    def webhook_bodies(self, view: JobView, at: datetime) -> Iterable[dict[str, Any]]:
        """The messages about the end of a job, in order: one POST each. Called again after a failure to save
        them, it gives as many."""


@dataclass(frozen=True, kw_only=True)
class Presenters:
    by_name: Mapping[str, Presenter]
    unnamed: Presenter
    """For records of releases that knew only one API with jobs."""

    def of(self, job: Job) -> Presenter | None:
        """None for the name of an API that this server does not have."""
        return self.unnamed if job.presenter is None else self.by_name.get(job.presenter)
