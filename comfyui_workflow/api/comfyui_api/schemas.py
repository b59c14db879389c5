"""Models of comfyui-api, for the OpenAPI document. Requests are parsed by `requests.py`."""

from typing import Any, Literal

from pydantic import Field, RootModel

from comfyui_workflow.api.operations import OpenRequestBody, ResponseBody


class PromptFailure(ResponseBody):
    """An error. Errors of the server have `statusCode` and `message` too, as those of Fastify."""

    error: str | None = None
    """What is wrong; `Bad Request` for a body that does not fit the schema."""
    location: str | None = None
    """The part of the body that is wrong: `prompt.1.inputs.image`."""
    statusCode: int | None = None  # noqa: N815
    code: str | None = None
    message: str | None = None
    id: str | None = None
    """With `interrupted`: the answer 404 of `/interrupt`."""
    interrupted: Literal["failed"] | None = None
    version: str | None = None
    """With `status`: the answer 503 of `/ready`."""
    status: Literal["not ready"] | None = None


class ConvertOutput(OpenRequestBody):
    format: Literal["jpeg", "jpg", "webp"]
    options: dict[str, bool | int | str] | None = None
    """Options of sharp (docs/api/image-conversion.md). An unknown one is an error."""


class UrlCredential(OpenRequestBody):
    url_pattern: str
    """Glob of the URL: `*` stops at a slash, `**` is anything, `?` is one character."""
    auth: dict[str, Any]
    """`type` is `bearer`, `basic`, `header`, `query` or `s3`."""


class UploadTiming(OpenRequestBody):
    is_async: bool = Field(default=False, alias="async")
    """True: the answer 202 comes at once."""


class S3Target(UploadTiming):
    bucket: str
    prefix: str | None = None


class HuggingFaceTarget(UploadTiming):
    repo: str
    repo_type: Literal["model", "dataset"] = "model"
    revision: str = "main"
    directory: str = "/"


class AzureTarget(UploadTiming):
    container: str
    blob_prefix: str | None = None


class HttpTarget(UploadTiming):
    url_prefix: str
    """Each output is sent with PUT to this URL, a slash and its name."""


class PromptBody(OpenRequestBody):
    """A prompt. Unknown fields are ignored."""

    prompt: dict[str, Any]
    """A graph in API format, or a file of the editor. An input file may be base64, a data URI or a URL;
    a model may be a URL."""
    id: str | None = None
    """Id of the prompt: default a new UUID. It may be used again."""
    webhook: str | None = None
    """URL that gets a POST for each output (`output.complete`), or one for a failure (`prompt.failed`)."""
    webhook_v2: str | None = None
    """URL that gets one signed POST with the whole answer (`prompt.complete`, `prompt.failed`)."""
    convert_output: ConvertOutput | None = None
    credentials: list[UrlCredential] | None = None
    """For the URLs of input files and models. The first whose pattern matches is used. Never in a record."""
    s3: S3Target | None = None
    """The outputs are uploaded there, and the answer has their URLs. Of several targets, the first in the
    order of this schema."""
    hf_upload: HuggingFaceTarget | None = None
    azure_blob_upload: AzureTarget | None = None
    http_upload: HttpTarget | None = None


class WorkflowBody(OpenRequestBody):
    """A request of a custom workflow: all fields of a prompt, with `input` in place of `prompt`."""

    input: dict[str, Any]
    """The values. Their schema is that of the file."""
    id: str | None = None
    webhook: str | None = None
    webhook_v2: str | None = None
    convert_output: ConvertOutput | None = None
    credentials: list[UrlCredential] | None = None
    s3: S3Target | None = None
    hf_upload: HuggingFaceTarget | None = None
    azure_blob_upload: AzureTarget | None = None
    http_upload: HttpTarget | None = None


class InterruptPromptBody(OpenRequestBody):
    id: str


class DownloadModelBody(OpenRequestBody):
    """Unknown fields are ignored."""

    url: str
    """A web address of a file. Its host must be allowed: `COMFYUI_WORKFLOW_PROVISION_HOSTS`."""
    model_type: str
    """ComfyUI's name of the model folder, such as `checkpoints`."""
    filename: str | None = None
    """Default: the name in the URL. It may have subfolders."""
    wait: bool = False
    """True: the answer comes when the file is in its place."""
    auth: dict[str, Any] | None = None
    """`type` is `bearer`, `basic`, `header` or `query`. The instance gets it. Never stored."""


class ModelDownload(ResponseBody):
    url: str
    """Without secrets."""
    model_type: str
    filename: str
    status: Literal["started", "completed"]
    """`started`: the answer 202."""
    size: int | None = None
    """In bytes."""
    duration: float | None = None
    """In seconds."""


class PromptPhase(ResponseBody):
    start: int
    end: int
    duration: int


class NodeStart(ResponseBody):
    start: int


class ExecutionTimes(PromptPhase):
    nodes: dict[str, NodeStart]
    """By node id."""
    total: PromptPhase
    """The same as `start`, `end` and `duration`."""


class ExecutionStats(ResponseBody):
    """Durations and points in time in milliseconds."""

    comfy_execution: ExecutionTimes
    preprocess_time: int
    comfy_round_trip_time: int
    postprocess_time: int
    upload_time: int
    total_time: int


class PromptEcho(ResponseBody):
    """The request, with defaults and the prompt as it is submitted."""

    id: str
    prompt: dict[str, Any]
    webhook: str | None = None
    webhook_v2: str | None = None
    convert_output: dict[str, Any] | None = None
    credentials: list[dict[str, Any]] | None = None
    """Without secrets."""
    s3: dict[str, Any] | None = None
    hf_upload: dict[str, Any] | None = None
    azure_blob_upload: dict[str, Any] | None = None
    http_upload: dict[str, Any] | None = None


class PromptResponse(PromptEcho):
    images: list[str] | None = None
    """The content of each output as base64, or its URL if it was uploaded."""
    filenames: list[str] | None = None
    stats: ExecutionStats | None = None
    status: Literal["ok"] | None = None
    """Set in the answer 202, which has no outputs."""


class WorkflowResponse(PromptResponse):
    input: dict[str, Any]
    """The values of the request, with defaults, and without secrets in URLs."""


class PromptState(PromptEcho):
    status: Literal["queued", "running", "completed", "failed", "cancelled"]
    workflow_id: str
    """Id of the run in the native API."""
    error: str | None = None
    images: list[str] | None = None
    filenames: list[str] | None = None
    stats: ExecutionStats | None = None


class Interrupted(ResponseBody):
    id: str
    interrupted: Literal["success", "failed"]
    """`failed` (404): no unfinished prompt has this id."""


class ModelLists(RootModel[dict[str, list[str]]]):
    """Names of model files by the names of their folders."""


class HealthProbe(ResponseBody):
    version: str
    status: Literal["healthy"]


class ReadyProbe(ResponseBody):
    version: str
    status: Literal["ready", "not ready"]
