"""Requests and responses of the native API as pydantic models, for the OpenAPI document.

Docstrings of models and fields become descriptions in the document. Requests are parsed by other code, with
its own error messages and limits; tests check that both agree
(docs/decisions/0011-schemas-beside-readers.md).
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from comfyui_workflow.api.operations import RequestBody, ResponseBody
from comfyui_workflow.api.run_requests import HIGHEST_PRIORITY, LONGEST_API_KEY, LONGEST_STAGGER_S
from comfyui_workflow.instances.schema import HIGHEST_PRICE, LONGEST_NAME, MOST_TAGS
from comfyui_workflow.instances.state import PreparationStatus, Reachability
from comfyui_workflow.runs.batch import OnError
from comfyui_workflow.runs.model import FileType, NodeStatus, Phase, RunStatus
from comfyui_workflow.runs.notification import NotifiedEvent
from comfyui_workflow.runs.parts import MOST_PARTS, Partial
from comfyui_workflow.runs.webhook import DeliveryStatus
from comfyui_workflow.workflows.editable_inputs import Kind, Role
from comfyui_workflow.workflows.findings import Severity
from comfyui_workflow.workflows.seed_mode import SeedMode

LARGEST_LIST_PAGE = 500
LARGEST_BATCH_PAGE = 100
LARGEST_WEBHOOK_PAGE = 100
LEAST_PREVIEW_PX, LARGEST_PREVIEW_PX = 16, 2048
MOST_LOG_LINES = 10_000

EXAMPLE_OF_RUN: JsonDict = {
    "ssh_connection": "ssh -p 40123 root@203.0.113.7",
    "workflow_file": "/home/me/portrait.json",
    "inputs": {"6.text": "a lake at dawn"},
}
EXAMPLE_OF_BATCH: JsonDict = {
    **EXAMPLE_OF_RUN,
    "inputs": {},
    "rows": [{"6.text": "a lake"}, {"6.text": "a hill"}],
}
EXAMPLE_OF_INSTANCE: JsonDict = {"name": "left", "ssh_connection": "ssh -p 40123 root@203.0.113.7"}

Percent = Annotated[float, Field(ge=0, le=100)]
Port = Annotated[int, Field(ge=1, le=65535)]
Money = Annotated[float, Field(description="In the currency of `price_per_hour`")]


class Failure(ResponseBody):
    """An error: a message for the user and a stable code for programs."""

    success: Literal[False]
    message: str
    """One sentence: what happened and what to do."""
    code: str
    """Stable error code, for example `invalid_request` (list: docs/api/workflow.md, "Error codes")."""


class Success(ResponseBody):
    success: Literal[True]


class Done(Success):
    message: str
    """One sentence about what was done."""


# runs


class ImageFormat(RequestBody):
    """An image format with the options of sharp."""

    format: Literal["jpeg", "jpg", "webp"]
    """Also the ending of the file names."""
    options: dict[str, bool | int | str] | None = None
    """Options of the format, such as `quality` (docs/api/image-conversion.md). An unknown one is an error."""


class WebhookSubscription(RequestBody):
    url: str
    """URL that gets a POST request with a JSON body. Signed as in Standard Webhooks if `WEBHOOK_SECRET` is
    set."""
    events: list[NotifiedEvent] | None = Field(None, min_length=1)
    """Events to send. Default for a run: all of its ends; for a batch: `batch.completed`, when all its runs
    have ended. In a batch, `run.…` events are sent for each run."""


class OrderFields(RequestBody):
    """The fields that all orders of a run have in common."""

    ssh_connection: str | None = None
    """The target: the ssh command of the provider, `user@host:port`, `ssh://…`, the name of an instance,
    `any` (any enabled instance) or `any:<tag>`."""
    seed_mode: SeedMode | None = None
    """Treatment of seeds: `saved` (default) keeps them, `control` applies each node's "control after
    generate", `randomize` draws new ones."""
    workflow_name: str | None = None
    """Display name. Default: the name of the file, else `workflow`."""
    input_images: list[str] | None = None
    """Paths on the server of files, or of directories of files, that are uploaded to the instance: below
    ComfyUI's input directory, where the workflow names them. Also URLs of files (`https://`, `s3://`,
    `hf://`), which the server downloads first."""
    credentials: list[dict[str, Any]] | None = None
    """Credentials for URLs of this request: `{"url_pattern": "https://host/**", "auth": {"type": "bearer",
    "token": "…"}}`. Not part of any record or response; deleted when the run needs them no more."""
    upload: dict[str, Any] | str | None = None
    """Where the outputs are uploaded to, after they were downloaded: a URL (`s3://bucket/prefix`,
    `hf://owner/repo/directory`, `https://…`), or an object with one of `s3`, `hf_upload`,
    `azure_blob_upload` and `http_upload`."""
    output_dir: str | None = None
    """Directory on the server for the output files. Default: the setting `COMFYUI_WORKFLOW_OUTPUT_DIR`, else
    `/tmp/comfyui_outputs`, or `outputs` in the data directory if writing is limited to it."""
    comfyui_port: Port | None = None
    """Port of ComfyUI on the instance. Default: the remote port of `-L` in the ssh string, else 18188. If it
    is not ComfyUI, the usual ports and those that the instance listens on are tried."""
    comfyui_input_dir: str | None = None
    """Absolute path of ComfyUI's input directory on the instance, for a ComfyUI that does not tell its own.
    Default: `/workspace/ComfyUI/input`."""
    comfyui_output_dir: str | None = None
    """Absolute path of ComfyUI's output directory on the instance, for a ComfyUI that does not tell its own.
    Default: `/workspace/ComfyUI/output`."""
    convert: ImageFormat | None = None
    """Format that the output images are converted to; the converted files are listed and fetched instead of
    the originals. Default: as ComfyUI saved them."""
    include_previews: bool | None = None
    """Also download the images of PreviewImage nodes. Default: false."""
    provision: bool | None = None
    """Install models and node packs that the instance lacks, on the instance, from where the workflow says.
    Default: false."""
    spread: int | None = Field(None, ge=1, le=MOST_PARTS)
    """Number of parts. Each part runs the same workflow on another instance, with every seed one higher than
    that of the part before; the run has the outputs of all. Details:
    docs/how-to/one-render-many-machines.md"""
    spread_over: list[str] | None = None
    """Names of the instances that may take a part, in this order. Default: all that `ssh_connection`
    allows."""
    partial: Partial | None = None
    """If a part fails: another instance takes it (`move`, default), the run is completed without it
    (`keep`), or the run fails (`fail`)."""
    priority: int | None = Field(None, ge=-HIGHEST_PRIORITY, le=HIGHEST_PRIORITY)
    """The run with the highest priority starts first, among runs that wait for the same instance. Default:
    0."""
    comfy_org_api_key: str | None = Field(None, max_length=LONGEST_API_KEY)
    """API key for nodes that call a service of Comfy.org. Sent with the prompt; not part of any record or
    response; deleted when ComfyUI has accepted the prompt or the run has ended."""
    webhook: str | WebhookSubscription | None = None
    """URL that is notified of the end of the run. Not taken over by `again`. Details: docs/api/webhooks.md"""


class OneRun(OrderFields):
    workflow_file: str | None = None
    """Path on the server of a workflow in API or editor format, or of a PNG, WEBP or JPEG that contains
    one; or its URL."""
    workflow: dict[str, Any] | str | None = None
    """The workflow itself, in API or editor format, also as a JSON text. Give either this or
    `workflow_file`."""
    inputs: dict[str, Any] | None = None
    """Values to set, by `<node id or title>.<input>`: `{"6.text": "a lake", "KSampler.steps": 30}`. An
    unknown or ambiguous name is an error (400)."""


class RunOrder(OneRun):
    """The fields of one run. `ssh_connection` and one of `workflow` and `workflow_file` are required, unless
    `again` names a run that has them. Unknown fields are refused; null means the default."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_OF_RUN]})

    again: str | None = None
    """Id of an earlier run. Fields that are missing in this body are taken from that run; `inputs` are merged
    by name."""


class CustomRunBody(OrderFields):
    """The `input` of a custom workflow, and the fields of `execute` without a workflow and `inputs`. Unknown
    fields are refused."""

    input: dict[str, Any] | None = None
    """Values of its parameters; `GET` of the same path describes them."""
    ssh_connection: str | None = None
    """The target, as for `execute`. Default: `any`."""
    workflow_name: str | None = None
    """Display name. Default: the name of the custom workflow."""


class CustomWorkflow(ResponseBody):
    name: str
    kind: Literal["json", "python", "javascript", "typescript"]
    summary: str | None
    description: str | None
    input_schema: dict[str, Any] | None
    """JSON Schema of `input`; null if the file cannot be used."""
    trouble: str | None
    """Why the file cannot be used; null if it can."""


class CustomWorkflowsResponse(Success):
    workflows: list[CustomWorkflow]
    """Sorted by name."""


class CustomWorkflowResponse(Success):
    workflow: CustomWorkflow


class WorkflowToInspect(RequestBody):
    """Give exactly one of `workflow`, `workflow_file` and `again`."""

    workflow_file: str | None = None
    """Path on the server of a workflow, or of a picture, video or other file that contains one."""
    workflow: dict[str, Any] | str | None = None
    """The workflow itself, in API or editor format, also as a JSON text."""
    again: str | None = None
    """Id of a run, whose workflow is inspected."""


class PriorityChange(RequestBody):
    priority: int | None = Field(0, ge=-HIGHEST_PRIORITY, le=HIGHEST_PRIORITY)
    """The run with the highest priority starts first, among runs that wait for the same instance."""


class ListQuery(RequestBody):
    limit: int = Field(50, ge=1, le=LARGEST_LIST_PAGE)
    """Maximum number of rows."""
    before: str | None = None
    """Page cursor: `next` of the previous page. Only runs older than this id are listed."""
    status: str | None = None
    """One or several statuses, separated by commas: `failed,cancelled`. Default: all."""
    name: str | None = None
    """Part of the name of the workflow or of the batch; case-insensitive."""
    instance: str | None = None
    """Id or name of an instance: lists the runs assigned to it, and those that wait for it by name."""
    batch: str | None = None
    """Id of a batch: lists its runs."""
    parts: Literal["true", "false"] = "false"
    """`true`: also lists runs that are parts of another one."""
    grouped: Literal["true", "false"] = "false"
    """`true`: one row for each batch instead of a row for each of its runs."""


class PreviewQuery(RequestBody):
    preview: int | None = Field(None, ge=LEAST_PREVIEW_PX, le=LARGEST_PREVIEW_PX)
    """Returns a WEBP whose longest side has at most this many pixels, instead of the file. An empty value
    means 256. Error 400 if the file is not a picture."""


class LivePreviewQuery(RequestBody):
    number: int | None = None
    """Not used by the server: it makes the URL of each picture unique for the cache of a browser."""


class RunStarted(Done):
    workflow_id: str
    """Id of the run."""


class Node(ResponseBody):
    node_id: str
    node_type: str
    """Class of the node."""
    title: str | None
    status: NodeStatus
    progress: Percent
    """Percent, 0 to 100."""
    message: str | None
    """Progress in words, for example `Step 45/100`; `Cached` for a node that did not run."""
    start_time: datetime | None
    """UTC, with milliseconds. Null for a cached node, and if the instance was not reachable at that time."""
    end_time: datetime | None
    """Like `start_time`."""


class OutputFile(ResponseBody):
    filename: str
    file_type: FileType
    remote_path: str | None
    """Path on the instance."""
    local_path: str | None
    """Path on the server; null while the file is not downloaded."""
    downloaded: bool
    subfolder: str
    """Subdirectory of ComfyUI's output directory; empty for none."""
    folder: str
    """ComfyUI's directory: `output` or `temp`. For a file outside of both, its directory on the instance;
    `text` for a text; `websocket` for a picture that came over the websocket only."""
    node_id: str
    """The node that made the file."""
    size_bytes: int | None
    error: str | None
    """Why the file is not downloaded; null otherwise."""
    upload_url: str | None
    """Where the file was uploaded to; null if it was not, or if the run has no `upload`."""
    upload_error: str | None
    part: int | None
    """Number of the part of the run that made it, from 1; null if the run has no parts."""
    """Why the file is not uploaded; null otherwise."""


class LivePreview(ResponseBody):
    number: int
    """Grows with each picture: fetch the picture again when this has changed."""
    node_id: str
    """The node that made the picture."""
    content_type: str
    """`image/jpeg`, `image/png` or `image/webp`."""


class Transfer(ResponseBody):
    direction: Literal["upload", "download"]
    """`upload`: to the instance, or to a storage. `download`: from one of them."""
    filename: str
    done_bytes: int
    total_bytes: int | None
    """Null while the size is not known."""


class RunFields(ResponseBody):
    """Fields that the progress of a run and its row in the list have in common. Times are in UTC."""

    workflow_id: str
    """Id of the run."""
    workflow_name: str
    prompt_id: str | None
    """Id of the prompt at ComfyUI; null before the first submission."""
    ssh_connection: str
    """The target as requested: an ssh string, the name of an instance, or `any`."""
    workflow_file: str | None
    """Path on the server as requested; null for an inline workflow."""
    status: RunStatus
    queue_position: int | None
    """Number of prompts ahead on the instance, including the one that executes; null while the prompt is not
    in the queue."""
    current_node: str | None
    """Class of the node that executes."""
    total_nodes: int
    """Number of nodes that the outputs need; 0 while this is not known."""
    completed_nodes: int
    progress_percent: Percent
    """Completed nodes as a percentage of all nodes, 0 to 100."""
    queue_time: datetime
    """Time of the request."""
    start_time: datetime | None
    """Start of the execution on the instance."""
    end_time: datetime | None
    last_update: datetime
    error_message: str | None
    """One sentence; in lists at most 300 characters."""
    failed_node: str | None
    """Class of the node that failed."""
    error_code: str | None
    """Stable error code (list: docs/api/workflow.md, "Error codes")."""
    failed_node_id: str | None
    current_node_id: str | None
    current_node_title: str | None
    current_node_progress: float | None
    """Percent, 0 to 100."""
    current_node_message: str | None
    """Progress in words, for example `Step 45/100`."""
    phase: Phase
    """Current step of the server; finer than `status`."""
    message: str | None
    """Current step in words."""
    submissions: int
    """Number of times the prompt was submitted; more than 1 after a restart of ComfyUI."""
    cancel_requested: bool
    can_retry: bool
    """True if `retry` would be accepted."""
    retry_refused: str | None
    """The error message that `retry` would return; null if it would be accepted."""
    instance: str | None
    """Name of the instance that the run was assigned to."""
    instance_id: str | None
    """Id of the assigned instance, or of the requested one before the assignment."""
    parent_id: str | None
    """Id of the run that this one is a part of."""
    parts: int
    """Number of parts of this run; 0 for a run on one instance."""
    batch_id: str | None
    priority: int
    gpu_seconds: float
    """Seconds that prompts of this run have executed on GPUs."""
    cost: Money | None
    """Cost of `gpu_seconds`, each at the price of its instance at that time; null if no price is known."""
    pictures: list[int]
    """Numbers of the first downloaded image outputs, at most 4."""
    expected_s: float | None
    """Expected duration of the prompt in seconds: the median of the last five completed runs of the same
    graph on the same instance. Null if unknown, and for a finished run."""
    live_preview: LivePreview | None


class Notification(ResponseBody):
    """The state of a webhook of a run or batch."""

    url: str
    """Without password and query."""
    events: list[NotifiedEvent]
    status: Literal["expected", "waiting", "delivered", "given_up", "not_requested", "unknown"]
    """`expected` before the end; `waiting` until it is delivered or given up; `not_requested` if the run
    ended in a way that is not among `events`; `unknown` after the record of the delivery was removed."""
    message: str | None
    """Why the last attempt failed; null if it did not."""
    webhook_id: str | None
    """Id of the delivery, for `/comfyui/webhooks/<webhook_id>`."""
    next_attempt_at: datetime | None


class RunPart(ResponseBody):
    """A part of a run, which is a run of its own."""

    part: int
    """Number of the part, from 1."""
    workflow_id: str
    """Id of the run that does this part. A part that failed may have moved to another run."""
    status: RunStatus
    progress_percent: Percent
    instance: str | None
    """Name of the instance that was chosen."""
    error_message: str | None
    gpu_seconds: float
    cost: Money | None


class RunProgress(RunFields):
    """The progress of one run."""

    nodes: list[Node]
    """Nodes that the outputs need, in the expected order of execution."""
    transfers: list[Transfer]
    """Files that are uploaded or downloaded at the moment."""
    outputs: list[OutputFile]
    notices: list[str]
    """Information that needs no action."""
    children: list[RunPart]
    """The parts of a run with `spread`, in their order; empty for other runs."""
    instance_reason: str | None
    """Why this instance was chosen."""
    webhook: Notification | None
    """State of the webhook that was requested for this run."""


class RunLine(RunFields):
    """A run as a row of a list."""

    output_count: int
    notices: list[str]
    """The first five, each with at most 300 characters."""


class ProgressResponse(Success):
    progress: RunProgress


class StateResponse(Success):
    state: RunProgress | None
    """The latest run; null if there is none."""


class RequestResponse(Success):
    request: dict[str, Any]
    """A body of `execute` that requests the same run again. Values equal to their default are left out."""
    graph: dict[str, Any] | None
    """The graph that the run submits; null while it is not known."""


class ActiveResponse(Success):
    active: bool
    """True while the run is not finished; false for a finished or unknown run."""


class OutputsResponse(Success):
    outputs: list[OutputFile]


class Damage(ResponseBody):
    found_at: datetime
    path: str
    """Path of the file on the server."""
    reason: str
    """Why the file could not be read."""
    outcome: str
    """The action that the server took instead."""


class DamageResponse(Success):
    damage: list[Damage]


class UnderwayCounts(ResponseBody):
    executing: int
    queued: int


class NowResponse(Success):
    executing: list[RunLine]
    """Runs that execute, oldest first, at most 20."""
    waiting: list[RunLine]
    """The next 5 runs of the queue, in their order."""
    counts: UnderwayCounts
    """Number of all runs that execute or wait."""
    version: int
    """Grows when a run is added, starts, ends, or is to start again. Request the list again only when this
    has changed."""


class Finding(ResponseBody):
    severity: Severity
    code: str
    """ComfyUI's own code if it has one, for example `value_not_in_list`."""
    message: str
    node_id: str | None
    class_type: str | None
    title: str | None
    input: str | None
    """Name of the input of the node."""
    nearest: list[str]
    """Similar values that the instance has."""


class KeyInput(ResponseBody):
    """An input that a user is likely to change. `role` is present for texts, `media` for files; `minimum`,
    `maximum`, `step` and `options` if the instance defines them."""

    name: str
    """Key for `inputs`: `<node id>.<input>`."""
    node_id: str
    class_type: str
    title: str | None
    input: str
    """Name of the input of the node."""
    kind: Kind
    value: Any
    """Text, number or boolean. An integer that JavaScript cannot represent exactly is a string, and may be
    sent as a string."""
    role: Role | None = None
    """For a text: the kind of prompt that it is connected to; null if unknown."""
    media: str | None = None
    """For a file: `image`, `video` or `audio`; null for another type."""
    minimum: float | int | None = None
    maximum: float | int | None = None
    step: float | int | None = None
    options: list[Any] | None = None
    """Allowed values."""


class MissingModel(ResponseBody):
    """A model that the instance does not have."""

    name: str
    """As the node names it."""
    folder: str | None
    """ComfyUI's name of the kind of model, such as `checkpoints`; null if nothing tells it."""
    node_id: str
    class_type: str
    input: str
    """Name of the input of the node."""
    url: str | None
    """Where it can be had, as the workflow says; null if it does not."""
    size_bytes: int | None
    """null if the host does not tell it."""
    can_provide: bool
    """True if a run with `provision` downloads it."""
    reason: str | None
    """Why `provision` does not download it."""


class MissingPack(ResponseBody):
    """A node pack that the instance does not have, as the editor file names it."""

    name: str
    version: str | None
    class_types: list[str]
    """Its classes that the workflow uses and the instance does not have."""
    url: str | None
    """Its repository; null if it is not known."""
    can_provide: bool
    """True if a run with `provision` installs it."""
    reason: str | None
    """Why `provision` does not install it."""


class ValidationResponse(Success):
    valid: bool
    """True if ComfyUI would run at least one output of the workflow."""
    errors: list[Finding]
    """Reasons why ComfyUI would refuse the workflow; empty exactly if `valid` is true."""
    warnings: list[Finding]
    missing: list[MissingModel]
    """Models that the instance lacks, and where they can be had."""
    missing_packs: list[MissingPack]
    """Node packs that the instance lacks, as far as the editor file names them."""
    graph: dict[str, Any]
    """The graph that would be submitted."""
    key_inputs: list[KeyInput]
    instance: str | None
    """Name of the instance that was asked; null for an ssh string."""


class InspectedNode(ResponseBody):
    node_id: str
    class_type: str
    title: str | None


class InspectResponse(Success):
    format: Literal["api", "editor"]
    """`editor`: only an instance can convert the workflow to a graph."""
    nodes: list[InspectedNode]
    key_inputs: list[KeyInput]
    """Found by names and values only, without the node definitions of an instance."""
    needs_instance: bool
    """True if `validate` returns more: for the editor format."""


class UploadQuery(RequestBody):
    group: str | None = Field(None, pattern="^[0-9a-f]{16}$")
    """16 random hexadecimal digits: files that are sent with the same ones are stored in one directory."""


class KeptFile(ResponseBody):
    path: str
    """Path on the server, for `workflow_file` or `input_images`."""
    filename: str


class FilesResponse(Success):
    path: str
    """Path of the first file."""
    files: list[KeptFile]


# batches


class BatchQuery(RequestBody):
    limit: int = Field(20, ge=1, le=LARGEST_BATCH_PAGE)
    """Maximum number of batches."""
    before: str | None = None
    """Page cursor: `next` of the previous page."""


class BatchBody(OneRun):
    """Either `runs`, or the fields of one run with `rows` or a `matrix`; at most 10,000 runs. Unknown fields
    are refused."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_OF_BATCH]})

    batch_name: str | None = None
    """Display name. Default: the name of the workflow of the first run."""
    runs: list["BatchRun"] | None = None
    """The runs of the batch, each with its own fields."""
    rows: list[dict[str, Any]] | None = None
    """The `inputs` of each run."""
    matrix: dict[str, list[Any]] | None = None
    """Values of each input; one run for each combination. The last input changes fastest."""
    on_error: OnError | None = None
    """`continue` (default), or `stop`: if a run fails, the waiting runs are cancelled."""
    stagger_s: float | None = Field(0, ge=0, le=LONGEST_STAGGER_S)
    """Minimum time between the starts of two runs, in seconds."""
    webhook: str | WebhookSubscription | None = None
    """URL that is notified of the end of the batch, and of the ends of its runs if `events` has them.
    Details: docs/api/webhooks.md"""


class BatchRun(OneRun):
    """The body of `execute` without `again`. Unknown fields are refused."""


class BatchStarted(Done):
    batch_id: str
    workflow_ids: list[str]
    """Ids of the runs, in the order of the request."""


class Picture(ResponseBody):
    workflow_id: str
    number: int
    """Number of the output of that run, counted from 0."""


class BatchFields(ResponseBody):
    """Fields of a batch. Times are in UTC."""

    batch_id: str
    batch_name: str
    status: RunStatus
    """`queued` until the first run starts, `executing` until all are finished, then the worst status of the
    runs: `failed`, `cancelled`, `completed`."""
    total: int
    """Number of runs."""
    counts: dict[RunStatus, int]
    """Number of runs with each status."""
    progress_percent: Percent
    """Mean of the runs, 0 to 100."""
    queue_time: datetime
    """Time of the request."""
    start_time: datetime | None
    """Start of the first run."""
    end_time: datetime | None
    """End of the last run; null until all runs are finished."""
    gpu_seconds: float
    """Seconds that prompts of all runs have executed on GPUs."""
    cost: Money | None
    """Null if no price is known."""
    unpriced_runs: int
    """Number of runs that executed without a known price; `cost` does not include them."""
    can_retry: bool
    """True if `retry` would resume at least one run."""
    pictures: list[Picture]
    """Downloaded image outputs of the newest runs, at most 4."""


class BatchLine(BatchFields):
    """A batch as a row of the list of runs, with `?grouped=true`."""


class BatchFailure(ResponseBody):
    workflow_id: str
    error_message: str | None
    error_code: str | None
    failed_node_id: str | None


class BatchNotice(ResponseBody):
    message: str
    workflow_ids: list[str]
    """The first 20 runs with this notice."""
    count: int
    """Number of runs with this notice."""


class BatchProgress(BatchFields):
    """The progress of one batch."""

    stagger_s: float
    """Minimum time between the starts of two runs, in seconds."""
    on_error: OnError
    failures: list[BatchFailure]
    """The first 20 runs that failed."""
    notices: list[BatchNotice]
    """Information about the results of the runs; at most 20 different ones."""
    webhook: Notification | None
    """State of the webhook that was requested for this batch."""


class RunsResponse(Success):
    workflows: list[RunLine | BatchLine]
    total: int
    """Number of runs that match the filter, on all pages."""
    next: str | None
    """`before` of the next page; null on the last page."""


class BatchesResponse(Success):
    batches: list[BatchProgress]
    next: str | None
    """`before` of the next page; null on the last page."""


class BatchProgressResponse(Success):
    progress: BatchProgress


class BatchCancelled(Done):
    cancelled: int
    """Number of runs that are cancelled."""


class BatchRetried(Done):
    retried: int
    """Number of runs that are resumed."""


class BatchOutput(OutputFile):
    workflow_id: str
    number: int
    """Number of the output of that run, counted from 0."""


class BatchOutputsResponse(Success):
    outputs: list[BatchOutput]


class BatchRunLine(RunLine):
    inputs: dict[str, Any]
    """The `inputs` that were set for this run."""


class BatchSummaryResponse(Success):
    batch: BatchProgress
    workflows: list[BatchRunLine]


# instances


class InstanceBody(RequestBody):
    """The fields of an instance. A new instance needs `name` and `ssh_connection`. In a change, only the
    given fields change, and null sets a field to its default. Unknown fields are refused; `id` is made from
    the name and cannot be set."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_OF_INSTANCE]})

    name: str | None = Field(None, max_length=LONGEST_NAME)
    """Unique, case-insensitive; printable characters without `/`. Not `any`, not `costs`, and not like an ssh
    string."""
    ssh_connection: str | None = None
    """The ssh command of the provider, `user@host:port` or `ssh://…`."""
    comfyui_port: Port | None = None
    """Port of ComfyUI on the instance. Default: the remote port of `-L` in the ssh string, else 18188."""
    comfyui_input_dir: str | None = None
    """Absolute path on the instance. Default: `/workspace/ComfyUI/input`."""
    comfyui_output_dir: str | None = None
    """Absolute path on the instance. Default: `/workspace/ComfyUI/output`."""
    enabled: bool | None = None
    """True (default) if runs for `any` may be assigned to the instance."""
    tags: list[str] | None = Field(None, max_length=MOST_TAGS)
    """Words without spaces, commas and colons, for `any:<tag>`."""
    price_per_hour: float | None = Field(None, ge=0, le=HIGHEST_PRICE)
    """In your currency."""
    host_key: str | None = None
    """Fingerprint that the host key must have: `SHA256:…`, as `ssh-keygen -lf` shows it. Default: the first
    key is trusted."""
    local_port: int | None = Field(None, ge=1024, le=65535)
    """Port on the loopback interface of the server that forwards to ComfyUI of the instance. Default:
    none."""
    keep_connected: bool | None = None
    """True: the server stays connected even if no run needs the instance, also after a restart. Default:
    false."""
    comfyui_token: str | None = None
    """Token that passes a login before ComfyUI (`Authorization: Bearer`). Never shown again. Null removes the
    login."""
    comfyui_user: str | None = None
    """User that passes a login before ComfyUI; needs `comfyui_password`."""
    comfyui_password: str | None = None
    """Never shown again."""


class FreeBody(RequestBody):
    """At least one of them must be true (400 otherwise)."""

    unload_models: bool | None = True
    """Unload the models from memory."""
    free_memory: bool | None = True
    """Free cached memory."""


class InterruptBody(RequestBody):
    """At most one of the two fields. Without a field, every running prompt is stopped."""

    prompt_id: str | None = None
    """Stop this prompt, if it is running."""
    workflow_id: str | None = None
    """Stop the prompt of this run, if it is running."""


class HostKeyBody(RequestBody):
    fingerprint: str
    """Fingerprint of the key to trust: `state.host_key.offered` of the instance, `SHA256:…`."""


class LogQuery(RequestBody):
    lines: int = Field(100, ge=1, le=MOST_LOG_LINES)
    """Maximum number of lines."""


class Device(ResponseBody):
    """A GPU or another device that ComfyUI computes with."""

    name: str
    type: str
    index: int | None
    vram_total: int | None
    """Bytes."""
    vram_free: int | None
    """Bytes."""


class InstancePrompts(ResponseBody):
    """The queue of ComfyUI at the time `looked_at`."""

    running: list[str]
    """Prompt ids."""
    pending: list[str]
    """Prompt ids."""
    ours: list[str]
    """Ids of the runs of this server that have a prompt in the queue."""
    others: int
    """Number of prompts that do not belong to this server."""


class HostKeys(ResponseBody):
    known: str | None
    """Fingerprint of the trusted key."""
    offered: str
    """Fingerprint of the key that the machine presented."""


class InstancePreparation(ResponseBody):
    status: PreparationStatus
    """`running`: the instance takes runs only afterwards; `failed`: it takes runs nevertheless."""
    message: str


class InstanceStatus(ResponseBody):
    """The last known state of an instance. Reading it never contacts the instance. Times are in UTC."""

    reachability: Reachability
    """`unknown` (not contacted yet), `connecting`, `ready` or `unreachable`."""
    trouble: str | None
    """Why the instance is unreachable; otherwise the last error, until the next success."""
    looked_at: datetime | None
    """Time of the last successful check."""
    comfyui_version: str | None
    comfyui_port: int | None
    """Port on which ComfyUI was found; it may differ from the port of the entry."""
    devices: list[Device]
    prompts: InstancePrompts | None
    round_trip_s: float | None
    """Round-trip time in seconds, measured when the connection was opened."""
    host_key_fingerprint: str | None
    """Fingerprint of the host key of the last connection."""
    host_key: HostKeys | None
    """Both fingerprints if the machine presented another key than the trusted one; null otherwise."""
    connected_since: datetime | None
    idle_since: datetime | None
    """Time since which the connected instance has had an empty queue."""
    idle_s: float
    """Seconds since `idle_since`; 0 while the instance is busy or not connected."""
    preparation: InstancePreparation | None
    """What the settings ask for after each start of ComfyUI (`MANIFEST`, `WARMUP_PROMPT_FILE`); null if
    nothing."""


class LocalPort(ResponseBody):
    port: int
    is_listening: bool
    trouble: str | None
    """Why the port cannot be opened, or why the instance could not be reached."""
    open_requests: int
    open_sockets: int
    """Number of open websockets."""


class InstanceEntry(ResponseBody):
    """A named instance; `InstanceBody` describes the fields that can be set."""

    id: str
    """Made from the name; never changes."""
    name: str
    ssh_connection: str
    comfyui_port: int
    comfyui_input_dir: str
    comfyui_output_dir: str
    enabled: bool
    tags: list[str]
    price_per_hour: float | None
    host_key: str | None
    local_port: int | None
    keep_connected: bool
    comfyui_login: Literal["token", "password"] | None
    """Kind of the login that was given for ComfyUI; the login itself is never shown."""
    state: InstanceStatus
    local_port_state: LocalPort | None
    """Null without a local port."""
    idle_warning: str | None
    """A sentence if the instance is connected and has been idle for longer than
    `COMFYUI_WORKFLOW_IDLE_WARNING_S`."""


class InstancesResponse(Success):
    instances: list[InstanceEntry]
    trouble: str | None
    """Why the file of the instances cannot be read; null otherwise."""


class InstanceResponse(Success):
    instance: InstanceEntry
    notices: list[str]
    """Options of the ssh string that are ignored or will cause errors."""


class InstanceChanged(InstanceResponse):
    unfinished_runs: int
    """Number of unfinished runs that name this instance or are assigned to it."""


class InstanceRemoved(Done):
    id: str
    unfinished_runs: int
    """Number of unfinished runs that name this instance or are assigned to it."""


class Spent(ResponseBody):
    """Costs and usage since the instance was added, across restarts of the server."""

    runs: int
    """Number of runs that started there."""
    gpu_seconds: float
    """Seconds that prompts of these runs executed, by the clock of ComfyUI."""
    run_cost: Money | None
    """Cost of `gpu_seconds`, at the price at the time each run was assigned; null if no price is known."""
    connected_s: float
    """Seconds that the instance was connected."""
    busy_s: float
    """Seconds of `connected_s` with a prompt in the queue."""
    idle_s: float
    """Rest of `connected_s`."""
    idle_cost: Money | None
    """Cost of `idle_s` at the current price (of a removed instance: at its last price); null if no price is
    known."""


class InstanceCosts(Spent):
    id: str
    name: str
    price_per_hour: float | None


class CostsResponse(Success):
    instances: list[InstanceCosts]
    removed: Spent
    """Sum of all removed instances."""
    total: Spent
    """Sum of `instances` and `removed`."""


class SystemStatsResponse(Success):
    system_stats: Any
    """The response of ComfyUI's `/system_stats`, unchanged."""


class QueuedPrompt(ResponseBody):
    prompt_id: str
    workflow_id: str | None
    """Id of the run; null for a prompt that does not belong to this server."""
    position: int
    """Number of prompts ahead; 0 for a running prompt."""


class QueueResponse(Success):
    running: list[QueuedPrompt]
    pending: list[QueuedPrompt]
    """In the order of execution."""


class Interrupted(Done):
    interrupted: list[QueuedPrompt]
    """The prompts that were told to stop; empty if none was running."""


class LogResponse(Success):
    lines: list[str]
    """Oldest first."""


class ManifestModel(RequestBody):
    url: str
    """The machine downloads from it. Its host must be in `COMFYUI_WORKFLOW_PROVISION_HOSTS`."""
    local_path: str
    """`checkpoints/x.safetensors`, or an absolute path; what follows `models/` counts."""
    sha256: str | None = None
    """64 hexadecimal digits, which the content must have."""


class ManifestModels(RequestBody):
    before_start: list[ManifestModel] | None = None
    after_start: list[ManifestModel] | None = None
    """Downloaded after everything else, while the instance takes runs."""


class ManifestBody(RequestBody):
    """What a machine should have. Unknown fields are refused."""

    apt: list[str] | None = None
    """Debian packages."""
    pip: list[str] | None = None
    """Requirements of pip, for the Python of ComfyUI."""
    custom_nodes: list[str] | None = None
    """Ids in ComfyUI's registry (`id@version`), or URLs of git repositories, with a version."""
    models: ManifestModels | None = None


class ProvisionBody(RequestBody):
    manifest: ManifestBody | str
    """The manifest, also as a text in YAML or JSON."""
    credentials: list[dict[str, Any]] | None = None
    """Credentials for the URLs of models, as for `execute`. Never returned or logged."""
    dry_run: bool | None = False
    """Return what would be done, and change nothing."""


class ProvisionQuery(RequestBody):
    after: int = Field(0, ge=0)
    """Only lines of the log with a higher number are returned."""


class PlanItem(ResponseBody):
    kind: Literal["apt", "pip", "custom_node", "model"]
    name: str
    """As the manifest has it, without secrets; of a model the path on the machine."""
    action: Literal["none", "install", "update", "download", "refused"]
    """`none`: it is there already. If something is refused, nothing is changed at all."""
    found: str | None
    """The version or the size of what is there; null if nothing is."""
    reason: str | None
    """Why it is refused."""


class ProvisionPlan(ResponseBody):
    items: list[PlanItem]
    restarts: bool
    """Whether ComfyUI would be restarted: after a change of pip or of node packs."""


class ProvisionLine(ResponseBody):
    number: int
    at: datetime | None
    text: str


class ProvisionDocument(ResponseBody):
    status: Literal["running", "completed", "failed", "cancelled"]
    began_at: datetime | None
    ended_at: datetime | None
    error: str | None
    activity: str | None
    """Progress of the current step: bytes, speed, or a line of git or pip."""
    plan: list[PlanItem]
    """What was there and what was to be done, at the begin of the last attempt."""
    log: list[ProvisionLine]


class LockedPack(ResponseBody):
    name: str
    path: str | None
    url: str | None
    commit: str | None
    version: str | None


class LockedModel(ResponseBody):
    url: str
    path: str
    size: int | None
    sha256: str | None
    time_ns: int | None
    """Time of the last change of the file, in nanoseconds."""


class ProvisionLock(ResponseBody):
    """What was there when a manifest was applied completely."""

    locked_at: datetime | None
    comfyui_version: str | None
    apt: dict[str, str | None]
    pip: dict[str, str | None]
    custom_nodes: list[LockedPack]
    models: list[LockedModel]


class ProvisionResponse(Success):
    provision: ProvisionDocument | None
    """The last application; null if there was none."""
    lock: ProvisionLock | None
    """Null if no manifest was ever applied completely."""


class ProvisionStarted(ProvisionResponse):
    message: str
    plan: ProvisionPlan | None
    """With `dry_run`; otherwise null."""


class HostKeyForgotten(Done):
    forgotten: str | None
    """Fingerprint of the removed key; null if none was known."""


# webhooks


class WebhookQuery(RequestBody):
    limit: int = Field(20, ge=1, le=LARGEST_WEBHOOK_PAGE)
    """Maximum number of webhooks."""
    before: str | None = None
    """Page cursor: `next` of the previous page."""
    workflow_id: str | None = None
    """Id of a run: lists its webhooks only."""


class WebhookAttempt(ResponseBody):
    at: datetime
    status: int | None
    """HTTP status of the receiver; null if no response was received."""
    trouble: str | None
    """Why no response was received; null otherwise."""


class Webhook(ResponseBody):
    """A webhook and the state of its delivery. Times are in UTC."""

    id: str
    """The receiver gets it in the header `Webhook-Id`."""
    workflow_id: str
    """Id of the run."""
    url: str
    """Without password and query."""
    status: DeliveryStatus
    created_at: datetime
    """End of the job."""
    content_bytes: int
    """Size of the JSON body."""
    attempt_count: int
    last_attempt: WebhookAttempt | None
    next_attempt_at: datetime | None
    """Null if no attempt is scheduled."""


class WebhookWithAttempts(Webhook):
    attempts: list[WebhookAttempt]
    """The last 100 attempts."""


class WebhooksResponse(Success):
    webhooks: list[Webhook]
    next: str | None
    """`before` of the next page; null on the last page."""


class WebhookResponse(Success):
    webhook: WebhookWithAttempts


class WebhookResent(Done):
    webhook: Webhook
