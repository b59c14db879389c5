"""A job: a run with a deadline, a time to live and a client that is told of its end. To JSON and back."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.model import Run, RunRequest, RunStatus

SYNC_PREFIX = "sync-"
USUAL_TTL_S = 86_400.0
"""How long a job is known, where its client says nothing else."""
IMAGE_NOT_FETCHED = "image_not_fetched"
"""The error code of a run that has not begun, since an image did not come from the web."""
NOT_DELIVERED = "not_delivered"
"""The error code of a job whose run has completed, and none of whose outputs arrived in the bucket."""


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    """It has executed for longer than its client allowed."""

    @property
    def is_final(self) -> bool:
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)

    @classmethod
    def _missing_(cls, value: object) -> "JobStatus | None":
        """Records of earlier releases have an API's own words, in capitals."""
        word = str(value).lower()
        return cls.__members__.get({"completed": "SUCCEEDED", "timed_out": "TIMEOUT"}.get(word, word.upper()))


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Where outputs are brought to, at whatever speaks S3."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    bucket_name: str | None = None
    """None: as the URL names it, or else after the month."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What became of an output in the bucket: `url`, or `error`."""

    number: int
    """Of the output, among those of its run, from 0."""
    url: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImageDownload:
    """An image that is to be fetched before the run may start."""

    url: str
    path: str
    """Where it will be on this machine."""


@dataclass(frozen=True, kw_only=True)
class JobOrder:
    """What a client asked for."""

    request: RunRequest
    endpoint: str
    presenter: str
    """Name of the API that asks, which words what its client is told."""
    is_sync: bool = False
    webhook: str | None = None
    execution_timeout_s: float | None = None
    ttl_s: float
    bucket: Bucket | None = None
    fetches: tuple[ImageDownload, ...] = ()
    comfy_org_api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a run does not know. It is final when its client has been told, if it is to be told."""

    job_id: str
    run_id: str
    """The run that carries it out; another one, where a retry could not take up the first."""
    endpoint: str
    created_at: datetime
    expires_at: datetime
    """From then on nobody knows it."""
    presenter: str | None = None
    """Name of the API that ordered it; None in records of releases that knew only one."""
    webhook: str | None = None
    execution_timeout_s: float | None = None
    bucket: Bucket | None = None
    """Its client's own; None uses that of the server, if it has one."""
    fetches: tuple[ImageDownload, ...] = ()
    """What is still missing; until then its run is not started."""
    verdict: JobStatus | None = None
    """CANCELLED as soon as that was said; TIMEOUT unless its run comes to an end of its own meanwhile."""
    judged_at: datetime | None = None
    uploads: tuple[Upload, ...] = ()
    final: JobStatus | None = None
    error: str | None = None
    """Why it has failed, where its run has not."""
    error_code: str | None = None
    """`NOT_DELIVERED`, or None."""
    retries: int = 0
    streamed: int = 0
    """How many of its outputs were streamed to whoever asked for them."""


def job_of_run(run: Run, at: datetime) -> Job:
    """A job whose own record is lost, known for as long as a new one."""
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
    """A synchronous job and any other are kept alike, and found by either name."""
    return job_id.removeprefix(SYNC_PREFIX)


def encode_job(job: Job) -> bytes:
    return _jobs.dump_json(job)


def decode_job(content: bytes) -> Job:
    """Raises: StoreError."""
    try:
        job = _jobs.validate_json(content)
    except ValidationError as error:
        raise StoreError(f"not the record of a job: {' '.join(str(error).split()[:12])}") from error
    times = (job.created_at, job.expires_at, job.judged_at)
    if any(at is not None and at.tzinfo is None for at in times):
        raise StoreError("not the record of a job: a time in it is none")
    return job


_jobs = TypeAdapter(Job)
