"""A run as data. Everything is frozen and changes only through `state_machine.apply`."""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property

from comfyui_workflow.parsing.ssh_address import SshAddress, parse_ssh_address
from comfyui_workflow.runs.credentials import NO_SECRETS, RequestSecrets
from comfyui_workflow.runs.image_conversion import ImageConversion
from comfyui_workflow.runs.notification import WebhookOrder
from comfyui_workflow.runs.parts import PartOrder, PartsOrder, PartState, cost_of_parts, current_parts
from comfyui_workflow.runs.status import FileType as FileType
from comfyui_workflow.runs.status import NodeStatus as NodeStatus
from comfyui_workflow.runs.status import Phase as Phase
from comfyui_workflow.runs.status import RunStatus as RunStatus
from comfyui_workflow.runs.status import is_run_id as is_run_id
from comfyui_workflow.runs.target import InstanceId, Target, address_of
from comfyui_workflow.runs.upload_target import (
    INPUT_NOT_DOWNLOADED,
    MODEL_NOT_DOWNLOADED,
    UPLOAD_FAILED,
    InputDownload,
    UploadTarget,
)
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.model import GraphRequest


@dataclass(frozen=True, kw_only=True)
class NodeProgress:
    node_id: str
    node_type: str
    title: str | None = None
    status: NodeStatus = NodeStatus.PENDING
    progress: float = 0.0
    """Percent, 0.0 to 100.0."""
    message: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    """None for a cached node, and for a node whose end was not observed."""


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """One file that a run made. `folder` is ComfyUI's name of the directory (`output` or `temp`). For a file
    outside of ComfyUI's directories it is an absolute directory of the instance; `text` for a text;
    `websocket` for a picture that came over the websocket only."""

    filename: str
    subfolder: str = ""
    folder: str = "output"
    node_id: str = ""
    other_node_ids: tuple[str, ...] = ()
    """Further nodes that list the same file."""
    file_type: FileType = FileType.OTHER
    text: str | None = None
    """The content of a text that a node displays and does not write to a file on the instance."""
    remote_path: str | None = None
    local_path: str | None = None
    size_bytes: int | None = None
    error: str | None = None
    is_lost: bool = False
    """True if a retry cannot mend the `error`: the file does not exist any more, or its name is not safe."""
    made_after: datetime | None = None
    made_before: datetime | None = None
    """The time in which the prompt executed, by the clock of the instance. None if ComfyUI does not report
    it."""
    converted_name: str | None = None
    """File name of the local file if it was converted to another format."""
    is_cached: bool = False
    """An earlier prompt made the file. ComfyUI returned it from its cache."""
    upload_url: str | None = None
    """Where it was uploaded to, if the run has an upload target."""
    upload_error: str | None = None
    part: int | None = None
    """Number of the part of the run that made it, from 0; None if a prompt of the run itself did."""

    @property
    def is_downloaded(self) -> bool:
        return self.local_path is not None

    @property
    def name(self) -> str:
        """The file name as clients see it: that of the converted file, if the file was converted."""
        return self.converted_name or self.filename

    @property
    def key(self) -> tuple[str, str, str]:
        """Two outputs with the same key are the same file. ComfyUI lists a cached file once for each node
        that shows it."""
        return (self.folder, self.subfolder, self.filename)


DAMAGED = "record_damaged"
"""Error code of a run that could not continue because its record was damaged."""
NOT_RESUBMITTED = "not_resubmitted"
"""Error code of a run whose prompt was lost, and is submitted again only by a retry, because that costs
credits."""


class LostParts(StrEnum):
    """The parts of a run that are lost because its record was damaged, and the consequence for its prompt."""

    STATE = "state"
    """It is not known if a prompt was submitted, or how it ended. The server looks for the prompt and never
    submits one."""
    PROGRESS = "progress"
    """Probably no prompt was submitted. The server looks for one before it submits the first."""
    GRAPH = "graph"
    """The prepared graph is lost. If the instance does not have the prompt, the graph is prepared again."""
    WORKFLOW = "workflow"
    """The workflow is lost. A submitted prompt is followed to its end, but nothing can be submitted."""


@dataclass(frozen=True, kw_only=True)
class RunRequest(GraphRequest):
    """The request of the user. Written once, never changed."""

    target: Target
    workflow_name: str
    output_dir: str
    workflow_file: str | None = None
    input_images: tuple[str, ...] = ()
    comfyui_port: int
    comfyui_input_dir: str
    comfyui_output_dir: str
    include_previews: bool = False
    convert: ImageConversion | None = None
    """The format that output images are converted to; None keeps them as ComfyUI saved them."""
    priority: int = 0
    """Runs that wait for the same instance are ordered by priority, highest first, then by age, oldest
    first."""
    batch_id: str | None = None
    has_comfy_org_api_key: bool = False
    """An API key for nodes that use a service of Comfy.org is sent with the prompt. The key is stored outside
    all records, and deleted when ComfyUI has accepted the prompt or the run has ended."""
    not_before: datetime | None = None
    """Earliest start time: the runs of a batch can be staggered."""
    stagger_s: float = 0.0
    """Minimum seconds between the starts of two runs of the batch."""
    batch_name: str | None = None
    """This field and the next two are copied from the batch, so that a lost batch record can be rebuilt from
    its runs."""
    batch_total: int | None = None
    batch_on_error: str | None = None
    downloads: tuple[InputDownload, ...] = ()
    """Input files that are given by URL. Their paths are in `input_images`."""
    upload: UploadTarget | None = None
    """Where the outputs are uploaded to, after they were downloaded. The run ends when they are there."""
    secrets: RequestSecrets = field(default=NO_SECRETS, repr=False, compare=False)
    """Not part of a record: the journal takes them out when it saves the run, and stores them outside of all
    records."""
    webhook: WebhookOrder | None = None
    """Notifications about the end of this run."""
    batch_webhook: WebhookOrder | None = None
    """Notifications about the end of the batch: another copy from the batch."""
    parts: PartsOrder | None = None
    """Set if several runs do the work of this one."""
    part: PartOrder | None = None
    """Set if this run is a part of another one."""

    @property
    def ssh_connection(self) -> str:
        """The target as the user wrote it."""
        return self.target.text

    @property
    def instance_id(self) -> str | None:
        """The id of the named instance; None for other targets."""
        return self.target.instance_id if isinstance(self.target, InstanceId) else None

    @property
    def parent_id(self) -> str | None:
        """The id of the run that this one is a part of."""
        return None if self.part is None else self.part.parent_id


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The instance that a run was assigned to, with its data at that time, and the reason for the choice."""

    instance_id: str
    name: str
    ssh_connection: str
    comfyui_port: int
    comfyui_input_dir: str
    comfyui_output_dir: str
    host_key: str | None = None
    price_per_hour: float | None = None
    reason: str

    @cached_property
    def address(self) -> SshAddress:
        """Raises: InvalidAddress."""
        return parse_ssh_address(self.ssh_connection)


@dataclass(frozen=True, kw_only=True)
class Stay:
    """GPU time and price of a run at an instance that it has left."""

    instance_id: str
    gpu_s: float
    price_per_hour: float | None = None

    @property
    def cost(self) -> float | None:
        return None if self.price_per_hour is None else self.price_per_hour * self.gpu_s / 3600


NAME_IN_RECORDS = {"alias": "workflow_id"}
"""Records and the native API use the name `workflow_id` for a `run_id`."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution of a workflow graph that this server manages."""

    run_id: str = field(metadata=NAME_IN_RECORDS)
    request: RunRequest
    queue_time: datetime
    last_update: datetime
    status: RunStatus = RunStatus.QUEUED
    phase: Phase = Phase.WAITING
    message: str | None = None
    """The current action, in words."""

    priority: int = 0
    placement: Placement | None = None
    """None until an instance is chosen. Always None for an ssh string that matches no instance of the
    directory."""
    prepared_graph: Graph | None = None
    """The graph to submit, if it differs from the graph of the request: converted, or with inputs set."""
    chosen_port: int | None = None
    """The port of the instance on which ComfyUI answered when the run came there first. The run uses no other
    port there: its prompt may be in that ComfyUI. None before, and in records of earlier releases."""
    graph_signature: str | None = None
    """Signature of the submitted graph (`workflows.signature`). None while the graph may still change."""
    prompt_id: str | None = None
    """Chosen by this server and saved before the prompt is submitted."""
    is_accepted: bool = False
    """ComfyUI has or had the prompt: one of its own responses said so."""
    partner_nodes: tuple[str, ...] = ()
    """Nodes that cost credits of Comfy.org each time they execute."""
    boot_marker: str | None = None
    """Name of a file in the temp directory of the instance. If the file is gone, ComfyUI was restarted."""
    submissions: int = 0
    sent_by: tuple[str, ...] = ()
    """Tokens of the server processes that sent the prompt of this submission, one entry for each time."""
    sent_at: datetime | None = None
    """Time at which the prompt was about to be sent for the last time."""
    times_lost_running: int = 0
    is_cancel_requested: bool = False
    cancel_reason: str | None = None
    """Set if the cancellation was not requested by a person."""

    queue_position: int | None = None
    nodes: tuple[NodeProgress, ...] = ()
    current_node_id: str | None = None
    outputs: tuple[OutputFile, ...] = ()
    are_outputs_known: bool = False
    """ComfyUI finished the prompt with success, and `outputs` is its complete list."""
    saved_again: tuple[str, ...] = ()
    """Nodes that execute again, because ComfyUI's cache listed files of theirs that are gone. Set once."""

    error_message: str | None = None
    error_code: str | None = None
    failed_node_id: str | None = None
    comfyui_said: str | None = None
    """The error of the failed node in ComfyUI's own words."""
    notices: tuple[str, ...] = ()

    start_time: datetime | None = None
    end_time: datetime | None = None
    gpu_s: float = 0.0
    """Seconds that prompts of this run have executed, including lost prompts. The prompt that executes since
    `gpu_since` is not included."""
    stays: tuple[Stay, ...] = ()
    """Earlier instances where a prompt executed. Their seconds are included in `gpu_s`."""
    gpu_since: datetime | None = None
    contact_lost_at: datetime | None = None
    """Since this time it is not known if the prompt still executes."""
    lost: frozenset[LostParts] = frozenset()
    """Parts that are lost because the record was damaged."""
    parts: tuple[PartState, ...] = ()
    """The runs that do the work of this one, also those that were replaced. A part is here before it
    exists."""
    are_parts_done: bool = False
    """The parts have ended with success, and what they made is in this record."""
    gathered_files: tuple[str, ...] = ()
    """Local paths of files that the parts made, and the prompt of this run needs."""

    @property
    def waits_for_parts(self) -> bool:
        """Its parts do the work: the run itself needs no instance yet."""
        return bool(self.parts) and not self.are_parts_done and not self.is_finished

    @property
    def current_parts(self) -> tuple[PartState, ...]:
        """The parts without those that were replaced, in their order."""
        return current_parts(self.parts)

    @property
    def input_files(self) -> tuple[str, ...]:
        """Local paths of all files that are uploaded before the prompt is submitted."""
        return (*self.request.input_images, *self.gathered_files)

    @property
    def ssh_connection(self) -> str:
        """The ssh string of the run. Never `any` after an instance was chosen."""
        return self.request.ssh_connection if self.placement is None else self.placement.ssh_connection

    @property
    def address(self) -> SshAddress:
        """Raises: InvalidAddress."""
        return address_of(self.request.target) if self.placement is None else self.placement.address

    @property
    def comfyui_port(self) -> int:
        return self.request.comfyui_port if self.placement is None else self.placement.comfyui_port

    @property
    def port_of_prompt(self) -> int | None:
        """The only port on which the run may use ComfyUI; None if it has been at none yet. Earlier releases
        used only the port of the request."""
        return self.chosen_port or (None if self.prompt_id is None else self.comfyui_port)

    @property
    def comfyui_input_dir(self) -> str:
        return self.request.comfyui_input_dir if self.placement is None else self.placement.comfyui_input_dir

    @property
    def comfyui_output_dir(self) -> str:
        return (
            self.request.comfyui_output_dir if self.placement is None else self.placement.comfyui_output_dir
        )

    @property
    def graph(self) -> Graph:
        return self.request.workflow.graph if self.prepared_graph is None else self.prepared_graph

    @property
    def is_finished(self) -> bool:
        return self.status.is_finished

    @property
    def is_sent_again(self) -> bool:
        """Copies of the prompt may still be on the network."""
        return len(self.sent_by) > 1

    @property
    def completed_nodes(self) -> int:
        return sum(node.status is NodeStatus.EXECUTED for node in self.nodes)

    @property
    def progress_percent(self) -> float:
        """Completed nodes in percent of all nodes, one decimal; 100.0 for a completed run."""
        if self.status is RunStatus.COMPLETED:
            return 100.0
        return round(100 * self.completed_nodes / len(self.nodes), 1) if self.nodes else 0.0

    @property
    def has_missing_outputs(self) -> bool:
        return any(not output.is_downloaded for output in self.outputs)

    @property
    def outputs_to_upload(self) -> tuple[OutputFile, ...]:
        """Outputs that are on this machine, and not yet where the request wants them."""
        if self.request.upload is None:
            return ()
        return tuple(each for each in self.outputs if each.is_downloaded and each.upload_url is None)

    @property
    def is_uploading(self) -> bool:
        """Everything is done except the upload: the instance is not needed any more."""
        has_all = self.are_outputs_known and not self.has_missing_outputs
        return has_all and bool(self.outputs_to_upload)

    @property
    def executes_since(self) -> datetime | None:
        """Start of the execution, if the prompt is known to be still executing."""
        return self.gpu_since if self.contact_lost_at is None else None

    def gpu_seconds(self, at: datetime) -> float:
        """Observed GPU time of this run and of its parts that have ended, in seconds."""
        return self.own_gpu_seconds(at) + sum(part.gpu_s for part in self.parts)

    def own_gpu_seconds(self, at: datetime) -> float:
        """The same without its parts."""
        seen_until = self.contact_lost_at or at
        running_s = 0.0 if self.gpu_since is None else max(0.0, (seen_until - self.gpu_since).total_seconds())
        return self.gpu_s + running_s

    def cost(self, at: datetime) -> float | None:
        """Cost in the currency of the instance's price; None if no price is known."""
        price = None if self.placement is None else self.placement.price_per_hour
        return sum_of_costs(cost_of(self.own_gpu_seconds(at), price, self.stays), cost_of_parts(self.parts))

    def node_type(self, node_id: str | None) -> str | None:
        return next((node.node_type for node in self.nodes if node.node_id == node_id), None)


def needs_url_secrets(run: Run) -> bool:
    """True while a step of the run, or of its retry, uses credentials for URLs."""
    failures = (UPLOAD_FAILED, INPUT_NOT_DOWNLOADED, MODEL_NOT_DOWNLOADED)
    return not run.is_finished or run.error_code in failures


def seconds_here(gpu_s: float, stays: tuple[Stay, ...]) -> float:
    """The GPU seconds at the current instance: all seconds without those of earlier stays."""
    return max(0.0, gpu_s - sum(stay.gpu_s for stay in stays))


def cost_of(gpu_s: float, price_per_hour: float | None, stays: tuple[Stay, ...]) -> float | None:
    """Each second is charged at the price of the instance where it was used. None if no price is known."""
    here = (price_per_hour, seconds_here(gpu_s, stays) if stays else gpu_s)
    parts = (here, *((stay.price_per_hour, stay.gpu_s) for stay in stays))
    costs = [price * seconds / 3600 for price, seconds in parts if price is not None]
    return sum(costs) if costs else None


def sum_of_costs(*costs: float | None) -> float | None:
    """None if no cost is known."""
    known = [cost for cost in costs if cost is not None]
    return sum(known) if known else None


_MICROSECOND_DIGITS = 5
_KEY_DIGITS = 16


def new_run_id(at: datetime, idempotency_key: str | None = None) -> str:
    """Returns an id that sorts by time of creation. The id ends with the Unix seconds and, in hexadecimal,
    five digits of microseconds and the idempotency key (16 digits) or a random part (8 digits)."""
    return f"comfyui_workflow_{id_time(at)}{idempotency_key or secrets.token_hex(4)}"


def idempotency_key_of(any_id: str) -> str | None:
    """The 16 hexadecimal digits of the key; None if the run or batch was ordered without a key."""
    end = any_id.rpartition("_")[2]
    return end[_MICROSECOND_DIGITS:] if len(end) == _MICROSECOND_DIGITS + _KEY_DIGITS else None


def id_time(at: datetime) -> str:
    """The part of an id that sorts by time. Always ten digits of seconds, also if the clock starts in
    1970."""
    return f"{int(at.timestamp()):010d}_{at.microsecond:0{_MICROSECOND_DIGITS}x}"


def later_than(last: datetime | None, at: datetime) -> datetime:
    """Returns a time for the next id: `at`, or one microsecond after `last` if the clock was set back."""
    return at if last is None or at > last else last + timedelta(microseconds=1)


def time_of_id(text: str) -> datetime:
    """Parses the creation time of a run or batch from its id. Raises: ValueError if the id contains no
    time."""
    seconds, _, rest = text.rpartition("_")
    at_s = int(seconds.rpartition("_")[2])
    try:
        microsecond = int(rest[:_MICROSECOND_DIGITS], 16) if len(rest) >= 13 else 999_999
        return datetime.fromtimestamp(at_s, UTC).replace(microsecond=min(microsecond, 999_999))
    except (OverflowError, OSError) as error:
        raise ValueError(f"{text} tells no time") from error
