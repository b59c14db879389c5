"""Requests and responses of RunPod's API with worker-comfyui's jobs, as models for the OpenAPI document.

`requests.py` reads, with sentences of its own; tests hold both together.
"""

from typing import Any, Literal

from pydantic import Field

from comfyui_workflow.api.operations import RequestBody, ResponseBody
from comfyui_workflow.api.runpod.requests import (
    LEAST_TIMEOUT_MS,
    LEAST_TTL_MS,
    LONGEST_MS,
    LONGEST_URL,
    USUAL_TTL_MS,
)

USUAL_WAIT_MS = 90_000
LEAST_WAIT_MS = 1_000
LONGEST_WAIT_MS = 300_000

Status = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]


class JobFailure(ResponseBody):
    error: str


class InputImage(RequestBody):
    name: str
    image: str = Field(description="Base64, a data URI, or a URL")


class JobInput(RequestBody):
    workflow: dict[str, Any] = Field(description="In API format or the editor's")
    images: list[InputImage] | None = None
    comfy_org_api_key: str | None = None


class Policy(RequestBody):
    executionTimeout: int | None = Field(  # noqa: N815 - RunPod's word
        None, ge=LEAST_TIMEOUT_MS, le=LONGEST_MS, description="Milliseconds"
    )
    ttl: int | None = Field(USUAL_TTL_MS, ge=LEAST_TTL_MS, le=LONGEST_MS, description="Milliseconds")
    lowPriority: bool | None = False  # noqa: N815


class S3Config(RequestBody):
    endpointUrl: str = Field(max_length=LONGEST_URL)  # noqa: N815
    accessId: str  # noqa: N815
    accessSecret: str  # noqa: N815
    bucketName: str | None = None  # noqa: N815


class JobBody(RequestBody):
    """`input` may be the text of its JSON, too."""

    input: JobInput
    webhook: str | None = Field(None, max_length=LONGEST_URL)
    policy: Policy | None = None
    s3Config: S3Config | None = None  # noqa: N815


class WaitQuery(RequestBody):
    wait: int = Field(USUAL_WAIT_MS, ge=LEAST_WAIT_MS, le=LONGEST_WAIT_MS, description="Milliseconds")


class OutputImage(ResponseBody):
    filename: str
    type: Literal["base64", "s3_url"]
    data: str


class JobOutput(ResponseBody):
    images: list[OutputImage]
    errors: list[str] = Field(default=[], description="What was not fatal")
    status: Literal["success_no_images"] | None = None


class JobHead(ResponseBody):
    """Times in milliseconds."""

    id: str
    status: Status
    delayTime: int | None = None  # noqa: N815
    executionTime: int | None = None  # noqa: N815
    workerId: str | None = None  # noqa: N815
    error: str | None = None


class JobResponse(JobHead):
    output: JobOutput | None = None


class StreamChunk(ResponseBody):
    output: OutputImage


class StreamResponse(JobHead):
    stream: list[StreamChunk]


class JobStatusResponse(ResponseBody):
    id: str
    status: Status


class QueuePurged(ResponseBody):
    removed: int
    status: Literal["completed"]


class JobCounts(ResponseBody):
    completed: int
    failed: int
    inProgress: int  # noqa: N815
    inQueue: int  # noqa: N815
    retried: int


class WorkerCounts(ResponseBody):
    idle: int
    initializing: int
    ready: int
    running: int
    throttled: int


class EndpointHealth(ResponseBody):
    jobs: JobCounts
    workers: WorkerCounts
