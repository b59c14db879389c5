"""Requests and responses of the native API, as models: the OpenAPI document is made of them.

The readers of requests have sentences and limits of their own; tests hold both together
(docs/decisions/0011-schemas-beside-readers.md).
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from comfyui_workflow.api.operations import RequestBody, ResponseBody
from comfyui_workflow.api.run_requests import HIGHEST_PRIORITY, LONGEST_STAGGER_S
from comfyui_workflow.instances.schema import HIGHEST_PRICE, LONGEST_NAME, MOST_TAGS
from comfyui_workflow.instances.state import Reachability
from comfyui_workflow.runs.batch import OnError
from comfyui_workflow.runs.model import FileType, NodeStatus, Phase, RunStatus
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
    """An error: a sentence that a person can act on, and a stable code."""

    success: Literal[False]
    message: str
    code: str


class Success(ResponseBody):
    success: Literal[True]


class Done(Success):
    message: str


# runs


class OneRun(RequestBody):
    ssh_connection: str | None = Field(
        None, description="The ssh command, `user@host:port`, the name of an instance, `any` or `any:<tag>`"
    )
    workflow_file: str | None = Field(None, description="Path on the server")
    workflow: dict[str, Any] | None = Field(None, description="In API format or the editor's")
    inputs: dict[str, Any] | None = Field(None, description="Values by `<node id or title>.<input>`")
    seed_mode: SeedMode | None = None
    workflow_name: str | None = None
    input_images: list[str] | None = Field(None, description="Paths on the server")
    output_dir: str | None = Field(None, description="Directory on the server")
    comfyui_port: Port | None = None
    comfyui_input_dir: str | None = Field(None, description="Absolute path on the instance")
    comfyui_output_dir: str | None = Field(None, description="Absolute path on the instance")
    include_previews: bool | None = None
    priority: int | None = Field(None, ge=-HIGHEST_PRIORITY, le=HIGHEST_PRIORITY)


class RunOrder(OneRun):
    """`ssh_connection` and `workflow` or `workflow_file` are required, but where `again` names a run that has
    them."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_OF_RUN]})

    again: str | None = Field(None, description="Id of a run: what is not given is as it was there")


class WorkflowToInspect(RequestBody):
    """`workflow`, `workflow_file` or `again`: one of them."""

    workflow_file: str | None = None
    workflow: dict[str, Any] | None = None
    again: str | None = None


class PriorityChange(RequestBody):
    priority: int | None = Field(0, ge=-HIGHEST_PRIORITY, le=HIGHEST_PRIORITY)


class ListQuery(RequestBody):
    limit: int = Field(50, ge=1, le=LARGEST_LIST_PAGE)
    before: str | None = Field(None, description="`next` of the page before")
    status: str | None = Field(None, description="One or several statuses, with commas between")
    name: str | None = Field(None, description="A part of the workflow's or the batch's name")
    instance: str | None = Field(None, description="Id or name")
    batch: str | None = Field(None, description="Id")
    grouped: Literal["true", "false"] = Field("false", description="One line for each batch")


class PreviewQuery(RequestBody):
    preview: int | None = Field(
        None,
        ge=LEAST_PREVIEW_PX,
        le=LARGEST_PREVIEW_PX,
        description="Longest side in pixels of a small WEBP instead of the file",
    )


class RunStarted(Done):
    workflow_id: str


class Node(ResponseBody):
    node_id: str
    node_type: str
    title: str | None
    status: NodeStatus
    progress: Percent
    message: str | None
    start_time: datetime | None
    end_time: datetime | None


class OutputFile(ResponseBody):
    filename: str
    file_type: FileType
    remote_path: str | None
    local_path: str | None
    downloaded: bool
    subfolder: str
    folder: str
    node_id: str
    size_bytes: int | None
    error: str | None


class LivePreview(ResponseBody):
    number: int
    node_id: str
    content_type: str


class Transfer(ResponseBody):
    direction: Literal["upload", "download"]
    filename: str
    done_bytes: int
    total_bytes: int | None


class RunFields(ResponseBody):
    """What the progress of a run and a line of the list have in common."""

    workflow_id: str
    workflow_name: str
    prompt_id: str | None
    ssh_connection: str
    workflow_file: str | None
    status: RunStatus
    queue_position: int | None
    current_node: str | None
    total_nodes: int
    completed_nodes: int
    progress_percent: Percent
    queue_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    last_update: datetime
    error_message: str | None
    failed_node: str | None
    error_code: str | None
    failed_node_id: str | None
    current_node_id: str | None
    current_node_title: str | None
    current_node_progress: float | None
    current_node_message: str | None
    phase: Phase
    message: str | None
    submissions: int
    cancel_requested: bool
    can_retry: bool
    """Whether a retry would be accepted."""
    retry_refused: str | None
    """The sentence it would be refused with."""
    instance: str | None
    instance_id: str | None
    batch_id: str | None
    priority: int
    gpu_seconds: float
    cost: Money | None
    pictures: list[int]
    expected_s: float | None
    live_preview: LivePreview | None


class RunProgress(RunFields):
    nodes: list[Node]
    transfers: list[Transfer]
    outputs: list[OutputFile]
    notices: list[str]
    instance_reason: str | None


class RunLine(RunFields):
    output_count: int


class ProgressResponse(Success):
    progress: RunProgress


class StateResponse(Success):
    state: RunProgress | None


class RequestResponse(Success):
    request: dict[str, Any] = Field(description="A body of `execute` that asks for the same again")
    graph: dict[str, Any] | None


class ActiveResponse(Success):
    active: bool


class OutputsResponse(Success):
    outputs: list[OutputFile]


class Damage(ResponseBody):
    found_at: datetime
    path: str
    reason: str
    outcome: str


class DamageResponse(Success):
    damage: list[Damage]


class UnderwayCounts(ResponseBody):
    executing: int
    queued: int


class NowResponse(Success):
    executing: list[RunLine]
    waiting: list[RunLine]
    counts: UnderwayCounts
    version: int


class Finding(ResponseBody):
    severity: Severity
    code: str
    message: str
    node_id: str | None
    class_type: str | None
    title: str | None
    input: str | None
    nearest: list[str]


class KeyInput(ResponseBody):
    """An input that a person is likely to change. `role` comes with texts, `media` with files; the bounds
    where the instance tells them."""

    name: str
    node_id: str
    class_type: str
    title: str | None
    input: str
    kind: Kind
    value: Any
    role: Role | None = None
    media: str | None = None
    minimum: float | int | None = None
    maximum: float | int | None = None
    step: float | int | None = None
    options: list[Any] | None = None


class ValidationResponse(Success):
    valid: bool
    errors: list[Finding]
    warnings: list[Finding]
    graph: dict[str, Any]
    key_inputs: list[KeyInput]
    instance: str | None


class InspectedNode(ResponseBody):
    node_id: str
    class_type: str
    title: str | None


class InspectResponse(Success):
    format: Literal["api", "editor"]
    nodes: list[InspectedNode]
    key_inputs: list[KeyInput]
    needs_instance: bool


class KeptFile(ResponseBody):
    path: str
    filename: str


class FilesResponse(Success):
    path: str = Field(description="Of the first of them")
    files: list[KeptFile]


# batches


class BatchQuery(RequestBody):
    limit: int = Field(20, ge=1, le=LARGEST_BATCH_PAGE)
    before: str | None = Field(None, description="`next` of the page before")


class BatchBody(OneRun):
    """Either `runs`, or the fields of one run with `rows` or a `matrix`. Other fields are refused."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE_OF_BATCH]})

    batch_name: str | None = None
    runs: list["BatchRun"] | None = None
    rows: list[dict[str, Any]] | None = Field(None, description="`inputs` of each run")
    matrix: dict[str, list[Any]] | None = Field(None, description="One run for each combination of values")
    on_error: OnError | None = None
    stagger_s: float | None = Field(
        0, ge=0, le=LONGEST_STAGGER_S, description="Between the starts of two runs"
    )


class BatchRun(OneRun):
    """As the body of `execute`; other fields are refused."""

    model_config = ConfigDict(extra="forbid")


class BatchStarted(Done):
    batch_id: str
    workflow_ids: list[str]


class Picture(ResponseBody):
    workflow_id: str
    number: int


class BatchFields(ResponseBody):
    batch_id: str
    batch_name: str
    status: RunStatus
    total: int
    counts: dict[RunStatus, int]
    progress_percent: Percent
    queue_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    gpu_seconds: float
    cost: Money | None
    unpriced_runs: int
    can_retry: bool
    """Whether a retry would take up one of its runs."""
    pictures: list[Picture]


class BatchLine(BatchFields):
    """A batch in the list of runs, with `?grouped=true`."""


class BatchFailure(ResponseBody):
    workflow_id: str
    error_message: str | None
    error_code: str | None
    failed_node_id: str | None


class BatchProgress(BatchFields):
    stagger_s: float
    on_error: OnError
    failures: list[BatchFailure]


class RunsResponse(Success):
    workflows: list[RunLine | BatchLine]
    total: int
    next: str | None


class BatchesResponse(Success):
    batches: list[BatchProgress]
    next: str | None


class BatchProgressResponse(Success):
    progress: BatchProgress


class BatchCancelled(Done):
    cancelled: int


class BatchRetried(Done):
    retried: int


class BatchOutput(OutputFile):
    workflow_id: str
    number: int


class BatchOutputsResponse(Success):
    outputs: list[BatchOutput]


class BatchRunLine(RunLine):
    inputs: dict[str, Any]


class BatchSummaryResponse(Success):
    batch: BatchProgress
    workflows: list[BatchRunLine]


# instances


class InstanceBody(RequestBody):
    """Other fields are refused; `id` is made of the name. `name` and `ssh_connection` are required for a new
    one. In a change, null sets a field to its default."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE_OF_INSTANCE]})

    name: str | None = Field(None, max_length=LONGEST_NAME)
    ssh_connection: str | None = None
    comfyui_port: Port | None = None
    comfyui_input_dir: str | None = Field(None, description="Absolute path on the instance")
    comfyui_output_dir: str | None = Field(None, description="Absolute path on the instance")
    enabled: bool | None = None
    tags: list[str] | None = Field(None, max_length=MOST_TAGS)
    price_per_hour: float | None = Field(None, ge=0, le=HIGHEST_PRICE)
    host_key: str | None = Field(None, description="`SHA256:…`, as `ssh-keygen -lf` shows it")
    local_port: int | None = Field(None, ge=1024, le=65535)
    keep_connected: bool | None = None


class FreeBody(RequestBody):
    unload_models: bool | None = True
    free_memory: bool | None = True


class InterruptBody(RequestBody):
    """One of them, or nothing: whatever runs."""

    prompt_id: str | None = None
    workflow_id: str | None = None


class HostKeyBody(RequestBody):
    fingerprint: str


class LogQuery(RequestBody):
    lines: int = Field(100, ge=1, le=MOST_LOG_LINES)


class Device(ResponseBody):
    name: str
    type: str
    index: int | None
    vram_total: int | None
    vram_free: int | None


class InstancePrompts(ResponseBody):
    running: list[str]
    pending: list[str]
    ours: list[str]
    others: int


class HostKeys(ResponseBody):
    known: str | None
    offered: str


class InstanceStatus(ResponseBody):
    reachability: Reachability
    trouble: str | None
    looked_at: datetime | None
    comfyui_version: str | None
    devices: list[Device]
    prompts: InstancePrompts | None
    round_trip_s: float | None
    host_key_fingerprint: str | None
    host_key: HostKeys | None
    connected_since: datetime | None
    idle_since: datetime | None
    idle_s: float


class LocalPort(ResponseBody):
    port: int
    is_listening: bool
    trouble: str | None
    open_requests: int
    open_sockets: int


class InstanceEntry(ResponseBody):
    id: str
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
    state: InstanceStatus
    local_port_state: LocalPort | None
    idle_warning: str | None


class InstancesResponse(Success):
    instances: list[InstanceEntry]
    trouble: str | None


class InstanceResponse(Success):
    instance: InstanceEntry
    notices: list[str]


class InstanceChanged(InstanceResponse):
    unfinished_runs: int


class InstanceRemoved(Done):
    id: str
    unfinished_runs: int


class Spent(ResponseBody):
    runs: int
    gpu_seconds: float
    run_cost: Money | None
    connected_s: float
    busy_s: float
    idle_s: float
    idle_cost: Money | None


class InstanceCosts(Spent):
    id: str
    name: str
    price_per_hour: float | None


class CostsResponse(Success):
    instances: list[InstanceCosts]
    removed: Spent
    total: Spent


class SystemStatsResponse(Success):
    system_stats: Any = Field(description="As ComfyUI answers")


class QueuedPrompt(ResponseBody):
    prompt_id: str
    workflow_id: str | None
    position: int


class QueueResponse(Success):
    running: list[QueuedPrompt]
    pending: list[QueuedPrompt]


class Interrupted(Done):
    interrupted: list[QueuedPrompt]


class LogResponse(Success):
    lines: list[str]


class HostKeyForgotten(Done):
    forgotten: str | None


# webhooks


class WebhookQuery(RequestBody):
    limit: int = Field(20, ge=1, le=LARGEST_WEBHOOK_PAGE)
    before: str | None = Field(None, description="`next` of the page before")
    workflow_id: str | None = None


class WebhookAttempt(ResponseBody):
    at: datetime
    status: int | None
    trouble: str | None


class Webhook(ResponseBody):
    id: str
    workflow_id: str
    url: str
    status: DeliveryStatus
    created_at: datetime
    content_bytes: int
    attempt_count: int
    last_attempt: WebhookAttempt | None
    next_attempt_at: datetime | None


class WebhookWithAttempts(Webhook):
    attempts: list[WebhookAttempt]


class WebhooksResponse(Success):
    webhooks: list[Webhook]
    next: str | None


class WebhookResponse(Success):
    webhook: WebhookWithAttempts


class WebhookResent(Done):
    webhook: Webhook
