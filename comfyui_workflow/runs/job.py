"""A job: a run with a deadline, a time to live and a client that is notified of its end. To JSON and back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.model import Run, RunRequest, RunStatus

SYNC_PREFIX = "sync-"
USUAL_TTL_S = 86_400.0
"""Default time to live of a job."""
IMAGE_NOT_FETCHED = "image_not_fetched"
"""Error code of a run that did not start, because an image could not be downloaded from the web."""
INVALID_ORDER = "invalid_order"
"""Error code of a run that did not start, because the order of its job is invalid (`Job.refusal`)."""
NOT_DELIVERED = "not_delivered"
"""Error code of a job whose run completed, but none of whose outputs was uploaded to the bucket."""


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    """The job executed longer than its client allowed."""

    @property
    def is_final(self) -> bool:
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)

    @classmethod
    def _missing_(cls, value: object) -> "JobStatus | None":
        """Records of earlier releases contain the status words of one API, in capitals."""
        word = str(value).lower()
        return cls.__members__.get({"completed": "SUCCEEDED", "timed_out": "TIMEOUT"}.get(word, word.upper()))


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """An S3-compatible bucket to which outputs are uploaded."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    bucket_name: str | None = None
    """None: the bucket that the URL names, or else a name made from the month."""
    object_path: str = ""
    """Prefix of the keys, without slashes at its ends."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """The result of the upload of one output: `url` or `error`."""

    number: int
    """Index of the output in its run, from 0."""
    url: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImageDownload:
    """An image to download before the run may start."""

    url: str
    path: str
    """Local path of the downloaded image."""


@dataclass(frozen=True, kw_only=True)
class JobOrder:
    """The job as the client ordered it."""

    request: RunRequest
    endpoint: str
    presenter: str
    """Name of the API that received the order. It formats the responses to the client."""
    is_sync: bool = False
    webhooks: tuple[str, ...] = ()
    execution_timeout_s: float | None = None
    ttl_s: float
    bucket: Bucket | None = None
    fetches: tuple[ImageDownload, ...] = ()
    comfy_org_api_key: str | None = field(default=None, repr=False)
    client_id: str | None = None
    """Id that the client has chosen. Several jobs may have the same one."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Data for the presenter, as JSON: what it needs to answer the client, and no other module reads."""
    is_delivered_here: bool = False
    """The outputs are not uploaded to the bucket of the server: the client fetches them here."""
    refusal: str | None = None
    """Why the order cannot be executed, in the words of its API. Its job is accepted, and fails with this
    message."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The data of a job beside its run. A job is final after its client was notified, if the client asked for
    that."""

    job_id: str
    run_id: str
    """The run that executes the job. It changes if a retry could not continue the first run."""
    endpoint: str
    created_at: datetime
    expires_at: datetime
    """The job is forgotten at this time."""
    presenter: str | None = None
    """Name of the API that received the order. None in records of releases that had only one."""
    webhook: str | None = None
    more_webhooks: tuple[str, ...] = ()
    """Further URLs that are notified of the end of the job."""
    execution_timeout_s: float | None = None
    bucket: Bucket | None = None
    """The client's bucket. None: the bucket of the server, if it has one."""
    fetches: tuple[ImageDownload, ...] = ()
    """Images that are still missing. The run does not start before they are downloaded."""
    client_id: str | None = None
    """Id that the client has chosen. Several jobs may have the same one."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Data of the presenter."""
    is_delivered_here: bool = False
    """The outputs are not uploaded to the bucket of the server."""
    refusal: str | None = None
    """Why the order cannot be executed. The run is never started and fails with this message."""
    verdict: JobStatus | None = None
    """CANCELLED as soon as that was requested. TIMEOUT unless the run ends by itself in the meantime."""
    judged_at: datetime | None = None
    uploads: tuple[Upload, ...] = ()
    final: JobStatus | None = None
    error: str | None = None
    """The reason of the failure, if the job failed but its run did not."""
    error_code: str | None = None
    """`NOT_DELIVERED`, or None."""
    retries: int = 0
    streamed: int = 0
    """Number of outputs that were already streamed to the client."""

    @property
    def webhooks(self) -> tuple[str, ...]:
        """The URLs that are notified of the end of the job."""
        return self.more_webhooks if self.webhook is None else (self.webhook, *self.more_webhooks)


def job_of_run(run: Run, at: datetime) -> Job:
    """Makes a job for a run whose job record is lost. Its time to live is that of a new job."""
    return Job(
        job_id=run.run_id,
        run_id=run.run_id,
        endpoint=run.request.instance_id or run.request.ssh_connection,
        created_at=run.queue_time,
        expires_at=at + timedelta(seconds=USUAL_TTL_S),
    )


def status_of(job: Job, run: Run) -> JobStatus:
    if job.final is not None:
        return job.final
    if job.verdict is JobStatus.CANCELLED:
        return job.verdict
    return JobStatus.QUEUED if run.status is RunStatus.QUEUED else JobStatus.RUNNING


def record_name(job_id: str) -> str:
    """Synchronous and other jobs are stored under the same name, and are found by either id."""
    return job_id.removeprefix(SYNC_PREFIX)


def encode_job(job: Job) -> bytes:
    return _jobs().dump_json(job)


def decode_job(content: bytes) -> Job:
    """Raises: StoreError."""
    try:
        job = _jobs().validate_json(content)
    except ValidationError as error:
        raise StoreError(f"not the record of a job: {' '.join(str(error).split()[:12])}") from error
    times = (job.created_at, job.expires_at, job.judged_at)
    if any(at is not None and at.tzinfo is None for at in times):
        raise StoreError("not the record of a job: a time in it is none")
    return job


_jobs = cache(lambda: TypeAdapter(Job))
