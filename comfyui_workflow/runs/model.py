"""A run as data: everything is frozen, and changes only through `progress.apply`."""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property

from comfyui_workflow.parsing.ssh_address import SshAddress, parse_ssh_address
from comfyui_workflow.runs.status import FileType as FileType
from comfyui_workflow.runs.status import NodeStatus as NodeStatus
from comfyui_workflow.runs.status import Phase as Phase
from comfyui_workflow.runs.status import RunStatus as RunStatus
from comfyui_workflow.runs.status import is_run_id as is_run_id
from comfyui_workflow.runs.target import InstanceId, Target, address_of
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
    """None for a cached node, and for what happened while nobody looked."""


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """One file a run made. `folder` is ComfyUI's word for the directory: `output` or `temp`."""

    filename: str
    subfolder: str = ""
    folder: str = "output"
    node_id: str = ""
    file_type: FileType = FileType.OTHER
    text: str | None = None
    """The content itself, for text that a node shows and never writes to a file on the instance."""
    remote_path: str | None = None
    local_path: str | None = None
    size_bytes: int | None = None
    error: str | None = None
    made_after: datetime | None = None
    made_before: datetime | None = None
    """When its prompt executed, by the clock of the instance; None where that is not told."""
    is_cached: bool = False
    """An earlier prompt made it; this one was served from ComfyUI's cache."""

    @property
    def is_downloaded(self) -> bool:
        return self.local_path is not None

    @property
    def key(self) -> tuple[str, str, str]:
        """Two outputs of one key are one file; ComfyUI lists a cached one for each node that shows it."""
        return (self.folder, self.subfolder, self.filename)


DAMAGED = "record_damaged"
"""The error code of a run that could not go on since its record was damaged."""


class LostParts(StrEnum):
    """What a damaged record no longer tells of a run, and what follows from it for its prompt."""

    STATE = "state"
    """Whether a prompt was submitted, or what became of it: it is looked for, and none is ever sent."""
    PROGRESS = "progress"
    """No prompt was submitted as far as is known: one is looked for before the first is sent."""
    GRAPH = "graph"
    """The prepared graph: a prompt that the instance does not have is prepared anew."""
    WORKFLOW = "workflow"
    """The workflow: what was submitted is followed to its end, and nothing can be submitted."""


@dataclass(frozen=True, kw_only=True)
class RunRequest(GraphRequest):
    """What a person asked for. Written once, never changed."""

    target: Target
    workflow_name: str
    output_dir: str
    workflow_file: str | None = None
    input_images: tuple[str, ...] = ()
    comfyui_port: int
    comfyui_input_dir: str
    comfyui_output_dir: str
    include_previews: bool = False
    priority: int = 0
    """Of runs that wait for the same instance the higher one goes first; then the older one."""
    batch_id: str | None = None
    has_comfy_org_api_key: bool = False
    """A key for nodes that ask a service of Comfy.org goes along with the prompt. It is kept apart from every
    record, and gone once ComfyUI has accepted the prompt, or the run has ended."""
    not_before: datetime | None = None
    """It is not started earlier: the runs of a batch can be staggered."""
    stagger_s: float = 0.0
    """Seconds between the starts of two runs of its batch."""
    batch_name: str | None = None
    """This and the next two are those of its batch, whose record can be made anew of its runs."""
    batch_total: int | None = None
    batch_on_error: str | None = None

    @property
    def ssh_connection(self) -> str:
        """The target as it was written."""
        return self.target.text

    @property
    def instance_id(self) -> str | None:
        """Of the instance that was named."""
        return self.target.instance_id if isinstance(self.target, InstanceId) else None


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The instance a run was given to, as it was known then, and why that one."""

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
    """At an instance that the run has left: how long the GPU worked for it there, and at which price."""

    instance_id: str
    gpu_s: float
    price_per_hour: float | None = None

    @property
    def cost(self) -> float | None:
        return None if self.price_per_hour is None else self.price_per_hour * self.gpu_s / 3600


NAME_IN_RECORDS = {"alias": "workflow_id"}
"""Records and the native API call a `run_id` so."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution of a graph, ours to look after."""

    run_id: str = field(metadata=NAME_IN_RECORDS)
    request: RunRequest
    queue_time: datetime
    last_update: datetime
    status: RunStatus = RunStatus.QUEUED
    phase: Phase = Phase.WAITING
    message: str | None = None
    """What happens just now, in words."""

    priority: int = 0
    placement: Placement | None = None
    """None until an instance was chosen, and for an ssh string that leads to none of the directory."""
    prepared_graph: Graph | None = None
    """What is submitted, where that is not the graph of the request: converted, or with inputs set."""
    graph_signature: str | None = None
    """Of the graph that is submitted (`workflows.signature`); None while that may still be another."""
    prompt_id: str | None = None
    """Chosen by us and saved before the prompt is submitted."""
    is_accepted: bool = False
    """ComfyUI has the prompt, or had it: an answer of its own said so."""
    boot_marker: str | None = None
    """Name of a file in the instance's temp directory; once it is gone, ComfyUI has been restarted."""
    submissions: int = 0
    sent_by: tuple[str, ...] = ()
    """The server processes that sent the prompt of this submission, one entry for each time."""
    sent_at: datetime | None = None
    """When it was about to be sent for the last time."""
    times_lost_running: int = 0
    is_cancel_requested: bool = False
    cancel_reason: str | None = None
    """Where it was not a person who asked for it."""

    queue_position: int | None = None
    nodes: tuple[NodeProgress, ...] = ()
    current_node_id: str | None = None
    outputs: tuple[OutputFile, ...] = ()
    are_outputs_known: bool = False
    """ComfyUI finished with success, and `outputs` is its complete list."""

    error_message: str | None = None
    error_code: str | None = None
    failed_node_id: str | None = None
    comfyui_said: str | None = None
    """Of the node that failed, in its own words."""
    notices: tuple[str, ...] = ()

    start_time: datetime | None = None
    end_time: datetime | None = None
    gpu_s: float = 0.0
    """Seconds that prompts of this run have executed, those that were lost included; without the one that
    executes since `gpu_since`."""
    stays: tuple[Stay, ...] = ()
    """At earlier instances, where a prompt executed; their seconds are in `gpu_s` too."""
    gpu_since: datetime | None = None
    contact_lost_at: datetime | None = None
    """Since when it is not known whether the prompt still executes."""
    lost: frozenset[LostParts] = frozenset()
    """What its record, which was damaged, no longer tells."""

    @property
    def ssh_connection(self) -> str:
        """Where it goes: never `any` once an instance was chosen."""
        return self.request.ssh_connection if self.placement is None else self.placement.ssh_connection

    @property
    def address(self) -> SshAddress:
        """Raises: InvalidAddress."""
        return address_of(self.request.target) if self.placement is None else self.placement.address

    @property
    def comfyui_port(self) -> int:
        return self.request.comfyui_port if self.placement is None else self.placement.comfyui_port

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
        """Copies of its prompt may be on their way to the instance."""
        return len(self.sent_by) > 1

    @property
    def completed_nodes(self) -> int:
        return sum(node.status is NodeStatus.EXECUTED for node in self.nodes)

    @property
    def progress_percent(self) -> float:
        """Nodes completed of all nodes, one decimal; 100.0 for a completed run."""
        if self.status is RunStatus.COMPLETED:
            return 100.0
        return round(100 * self.completed_nodes / len(self.nodes), 1) if self.nodes else 0.0

    @property
    def has_missing_outputs(self) -> bool:
        return any(not output.is_downloaded for output in self.outputs)

    @property
    def executes_since(self) -> datetime | None:
        """Of a prompt that is known to execute still."""
        return self.gpu_since if self.contact_lost_at is None else None

    def gpu_seconds(self, at: datetime) -> float:
        """How long the GPU has worked for this run, as far as it was seen."""
        seen_until = self.contact_lost_at or at
        running_s = 0.0 if self.gpu_since is None else max(0.0, (seen_until - self.gpu_since).total_seconds())
        return self.gpu_s + running_s

    def cost(self, at: datetime) -> float | None:
        """In the currency of the instance's price; None where that is not known."""
        price = None if self.placement is None else self.placement.price_per_hour
        return cost_of(self.gpu_seconds(at), price, self.stays)

    def node_type(self, node_id: str | None) -> str | None:
        return next((node.node_type for node in self.nodes if node.node_id == node_id), None)


def seconds_here(gpu_s: float, stays: tuple[Stay, ...]) -> float:
    """Of all that the GPU worked, what it did at the instance where the run is now."""
    return max(0.0, gpu_s - sum(stay.gpu_s for stay in stays))


def cost_of(gpu_s: float, price_per_hour: float | None, stays: tuple[Stay, ...]) -> float | None:
    """Each second at the price of the instance where it was; None where none is known."""
    here = (price_per_hour, seconds_here(gpu_s, stays) if stays else gpu_s)
    parts = (here, *((stay.price_per_hour, stay.gpu_s) for stay in stays))
    costs = [price * seconds / 3600 for price, seconds in parts if price is not None]
    return sum(costs) if costs else None


_MICROSECOND_DIGITS = 5
_KEY_DIGITS = 16


def new_run_id(at: datetime, idempotency_key: str | None = None) -> str:
    """An id that sorts by time of creation: Unix seconds, then, in hexadecimal, five digits of microseconds
    and the sixteen of the idempotency key, or eight by chance."""
    return f"comfyui_workflow_{id_time(at)}{idempotency_key or secrets.token_hex(4)}"


def idempotency_key_of(run_id: str) -> str | None:
    """The sixteen hexadecimal digits; None of a run that was ordered without a key."""
    end = run_id.rpartition("_")[2]
    return end[_MICROSECOND_DIGITS:] if len(end) == _MICROSECOND_DIGITS + _KEY_DIGITS else None


def id_time(at: datetime) -> str:
    """The part of an id that sorts by time; ten digits of seconds, also where a clock begins in 1970."""
    return f"{int(at.timestamp()):010d}_{at.microsecond:0{_MICROSECOND_DIGITS}x}"


def later_than(last: datetime | None, at: datetime) -> datetime:
    """A time for the next id: that one, or just after the last, where the clock was set back."""
    return at if last is None or at > last else last + timedelta(microseconds=1)


def time_of_id(text: str) -> datetime:
    """When the run or batch of this id was created, as far as its id tells.
    Raises: ValueError where that is no time."""
    seconds, _, rest = text.rpartition("_")
    at_s = int(seconds.rpartition("_")[2])
    try:
        microsecond = int(rest[:_MICROSECOND_DIGITS], 16) if len(rest) >= 13 else 999_999
        return datetime.fromtimestamp(at_s, UTC).replace(microsecond=min(microsecond, 999_999))
    except (OverflowError, OSError) as error:
        raise ValueError(f"{text} tells no time") from error
