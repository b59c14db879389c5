"""Bodies of the routes of ComfyUI-Distributed, for the OpenAPI document."""

from typing import Any

from pydantic import ConfigDict, Field

from comfyui_workflow.api.operations import OpenRequestBody, ResponseBody


class QueueBody(OpenRequestBody):
    prompt: dict[str, Any] | None = None
    """The graph in ComfyUI's API format. May be left out if `workflow.prompt` has it."""
    workflow: Any = None
    """Metadata of the editor."""
    client_id: str
    """Receives the messages of the prompt at `/ws` of the master's local port."""
    delegate_master: bool | None = None
    """`true`: the master renders no part of its own."""
    enabled_worker_ids: list[str] | None = None
    """Ids of the workers that may take part; `[]` for the master alone."""
    workers: list[Any] | None = None
    """Older name of `enabled_worker_ids`: ids, or objects with an `id`."""
    auto_prepare: bool = True
    """Without an effect."""
    trace_execution_id: str | None = None
    """Is in the log of the server as `[exec:…]`."""
    partial: str | None = None
    """`move`, `keep` or `fail`: what follows if a part fails. An addition to the plugin."""


class QueueResponse(ResponseBody):
    prompt_id: str
    """Id of the prompt of the master."""
    number: int
    node_errors: dict[str, Any]
    worker_count: int
    """Number of workers that render a part."""
    auto_prepare_supported: bool
    workflow_id: str
    """Id of the run: an addition to the plugin."""


class WorkerDocument(ResponseBody):
    id: str
    name: str
    host: str
    port: int
    cuda_device: int | None
    enabled: bool
    extra_args: str
    type: str


class ConfigResponse(ResponseBody):
    master: dict[str, Any]
    workers: list[WorkerDocument]
    settings: dict[str, Any]
    tunnel: dict[str, Any]


class ConfigBody(OpenRequestBody):
    workers: list[dict[str, Any]] | None = None
    """All workers: others are removed from the registry of the instances."""
    master: dict[str, Any] | None = None
    settings: dict[str, Any] | None = None
    worker_timeout_seconds: int | None = None
    debug: bool | None = None
    auto_launch_workers: bool | None = None
    stop_workers_on_master_exit: bool | None = None
    master_delegate_only: bool | None = None
    websocket_orchestration: bool | None = None
    has_auto_populated_workers: bool | None = None


class ConfigChanged(ResponseBody):
    status: str
    config: ConfigResponse


class WorkerBody(OpenRequestBody):
    worker_id: str
    name: str | None = None
    enabled: bool | None = None
    ssh_connection: str | None = None
    """The ssh string of the machine: an addition to the plugin."""
    host: str | None = None
    """For a new worker without `ssh_connection`: the destination of an ssh command."""
    port: int | None = None
    """For a new worker: the port of ComfyUI on the machine."""
    cuda_device: int | None = None
    extra_args: str | None = None
    type: str | None = None


class WorkerIdBody(OpenRequestBody):
    worker_id: str


class SettingBody(OpenRequestBody):
    key: str
    value: Any


class MasterBody(OpenRequestBody):
    name: str | None = None
    host: str | None = None
    port: int | None = None
    cuda_device: int | None = None
    extra_args: str | None = None


class Success(ResponseBody):
    status: str
    message: str | None = None


class QueueStatus(ResponseBody):
    exists: bool
    job_id: str


class JobStatus(ResponseBody):
    ready: bool


class JobIdBody(OpenRequestBody):
    multi_job_id: str


class HeartbeatBody(OpenRequestBody):
    worker_id: str
    multi_job_id: str


class ResultBody(OpenRequestBody):
    job_id: str
    worker_id: str
    batch_idx: int
    image: str
    """A PNG as base64, or as a data URL."""
    audio: dict[str, Any] | None = None
    is_last: bool


class LogQuery(OpenRequestBody):
    lines: int = 300
    """At most 3000."""


class LogResponse(ResponseBody):
    status: str
    content: str
    entries: int
    source: str
    truncated: bool
    lines_shown: int


class ImageBody(OpenRequestBody):
    image_path: str
    """Name of a file in the input directory of the master; `[output]` or `[temp]` after it for the others."""


class ImageResponse(ResponseBody):
    status: str
    image_data: str
    """The file as a data URL."""
    hash: str
    """MD5 of the file."""


class FileBody(OpenRequestBody):
    filename: str
    hash: str
    """MD5 of the file."""


class FileResponse(ResponseBody):
    status: str
    exists: bool
    hash_matches: bool | None = None


class Platform(ResponseBody):
    system: str
    machine: str
    node: str
    path_separator: str
    os_name: str


class SystemInfo(ResponseBody):
    status: str
    hostname: str
    machine_id: str
    platform: Platform
    is_docker: bool
    is_runpod: bool
    runpod_pod_id: str | None


class NetworkInfo(ResponseBody):
    status: str
    hostname: str
    all_ips: list[str]
    recommended_ip: str | None
    cuda_device: int | None
    cuda_device_count: int
    message: str


class ManagedWorkers(ResponseBody):
    status: str
    managed_workers: dict[str, Any]


class LocalWorkers(ResponseBody):
    status: str
    worker_statuses: dict[str, Any]


class TunnelResponse(ResponseBody):
    status: str
    tunnel: dict[str, Any]
    master_host: str | None


class DistributedFailure(ResponseBody):
    """One message, or several: `errors`, or a list in `error`."""

    model_config = ConfigDict(extra="allow")

    error: str | list[str] | None = Field(default=None)
