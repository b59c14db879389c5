"""Presenters: the interface through which an API formats the webhooks of its jobs.

The record of a job contains the name of its presenter, so that a restarted server can find it again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from comfyui_workflow.runs.job import Job
from comfyui_workflow.services.jobs.view import JobView


@dataclass(frozen=True, kw_only=True)
class WebhookMessage:
    """One POST request to a client."""

    url: str
    body: Mapping[str, Any]
    message_id: str | None = None
    """The id in the signature. None: the message is not signed."""


class Presenter(Protocol):
    """Formats a job in the format of its API. Thread-safe."""

    def webhook_messages(self, view: JobView, at: datetime) -> Iterable[WebhookMessage]:
        """Returns the messages about the end of a job, in order; called only for a job with webhooks. An
        iterator keeps only one message with its pictures in memory.

        After a failure to save them it is called again, and must return the same messages in the same
        order."""


@dataclass(frozen=True, kw_only=True)
class Presenters:
    by_name: Mapping[str, Presenter]
    unnamed: Presenter
    """Presenter for records of old releases, which had only one API with jobs and saved no name."""

    def of(self, job: Job) -> Presenter | None:
        """Returns the presenter of a job. None if this server has no API of that name."""
        return self.unnamed if job.presenter is None else self.by_name.get(job.presenter)
