"""Models of RunPod's API with the jobs of worker-comfyui, for the OpenAPI document.

Requests are parsed by `requests.py`; tests check that both agree.
"""

from typing import Any, Literal

from pydantic import Field

from comfyui_workflow.api.operations import OpenRequestBody, ResponseBody
from comfyui_workflow.api.runpod.requests import (
    LEAST_TIMEOUT_MS,
    LEAST_TTL_MS,
    LONGEST_MS,
    LONGEST_OBJECT_PATH,
    LONGEST_URL,
    USUAL_TTL_MS,
)

USUAL_WAIT_MS = 90_000
LEAST_WAIT_MS = 1_000
LONGEST_WAIT_MS = 300_000

Status = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]


class JobFailure(ResponseBody):
    error: str
    """One sentence: what happened and what to do."""


class InputImage(OpenRequestBody):
    name: str
    """File name without directories. If a name occurs twice, the later image replaces the earlier one."""
    image: str
    """Base64, a data URI, or an `http` or `https` URL of a file with at most 64 MB."""


class JobInput(OpenRequestBody):
    workflow: dict[str, Any]
    """In API or editor format."""
    images: list[InputImage] | None = None
    """Files that are uploaded to the instance before the workflow runs."""
    comfy_org_api_key: str | None = None
    """API key for nodes that call a service of Comfy.org. Sent with the prompt; deleted when
    ComfyUI has accepted the prompt or the run has ended."""


class Policy(OpenRequestBody):
    executionTimeout: int | None = Field(  # noqa: N815 - RunPod's word
        None, ge=LEAST_TIMEOUT_MS, le=LONGEST_MS
    )
    """Maximum execution time in milliseconds; then the job is `TIMED_OUT`. Default: no limit."""
    ttl: int | None = Field(USUAL_TTL_MS, ge=LEAST_TTL_MS, le=LONGEST_MS)
    """Lifetime of the job in milliseconds, from the request. Then an unfinished job is cancelled, and the job
    id becomes unknown."""
    lowPriority: bool | None = False  # noqa: N815
    """True: other jobs and runs that wait for the same instance start first."""


class S3Config(OpenRequestBody):
    """The bucket that the outputs of the job are uploaded to."""

    endpointUrl: str = Field(max_length=LONGEST_URL)  # noqa: N815
    accessId: str  # noqa: N815
    accessSecret: str  # noqa: N815
    bucketName: str | None = None  # noqa: N815
    """Default: the name in `endpointUrl`."""
    objectPath: str | None = Field(None, max_length=LONGEST_OBJECT_PATH)  # noqa: N815
    """Directory in the bucket: prefix of the keys of all outputs."""


class JobBody(OpenRequestBody):
    """A job. `input` may also be a string with its JSON."""

    input: JobInput
    webhook: str | None = Field(None, max_length=LONGEST_URL)
    """URL that gets the result of the job as a POST when the job ends."""
    webhookV2: str | None = Field(None, max_length=LONGEST_URL)  # noqa: N815 - a field of `runpod-sdk`
    """A second URL that gets the same."""
    policy: Policy | None = None
    s3Config: S3Config | None = None  # noqa: N815


class WaitQuery(OpenRequestBody):
    wait: int = Field(USUAL_WAIT_MS, ge=LEAST_WAIT_MS, le=LONGEST_WAIT_MS)
    """Maximum wait in milliseconds."""


class OutputImage(ResponseBody):
    filename: str
    type: Literal["base64", "s3_url"]
    data: str
    """The content in base64, or a URL in the bucket that can be read for seven days."""


class JobOutput(ResponseBody):
    images: list[OutputImage]
    """All files that the workflow made, not only images."""
    errors: list[str] = Field(default=[])
    """Errors that did not end the job: files that are missing."""
    notices: list[str] = Field(default=[])
    """Information about the run that needs no action."""
    status: Literal["success_no_images"] | None = None
    """Set if the job has neither files nor errors."""


class JobHead(ResponseBody):
    """The state of a job."""

    id: str
    status: Status
    delayTime: int | None = None  # noqa: N815
    """Milliseconds from the request to the start of the execution; to the end of the job if it never
    started."""
    executionTime: int | None = None  # noqa: N815
    """Milliseconds that ComfyUI executed the job."""
    workerId: str | None = None  # noqa: N815
    """Name of the instance."""
    error: str | None = None
    """Why the job failed or timed out."""


class JobResponse(JobHead):
    """A job with its output."""

    output: JobOutput | None = None


class StreamChunk(ResponseBody):
    output: OutputImage


class StreamResponse(JobHead):
    """A job with the outputs that no earlier request has received."""

    stream: list[StreamChunk]
    """One chunk for each file."""


class JobStatusResponse(ResponseBody):
    id: str
    status: Status


class QueuePurged(ResponseBody):
    removed: int
    """Number of jobs that were cancelled."""
    status: Literal["completed"]


class JobCounts(ResponseBody):
    """Number of jobs by status."""

    completed: int
    failed: int
    inProgress: int  # noqa: N815
    inQueue: int  # noqa: N815
    retried: int


class WorkerCounts(ResponseBody):
    """Number of instances by state."""

    idle: int
    initializing: int
    """Not known to be ready yet."""
    ready: int
    """Same as `idle`."""
    running: int
    throttled: int
    """Unreachable."""


class EndpointHealth(ResponseBody):
    jobs: JobCounts
    workers: WorkerCounts
