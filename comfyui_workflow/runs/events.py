"""The events of a run, named in the past tense. `state_machine.apply` defines how each event changes the
run."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import ClassVar

from comfyui_workflow.runs.model import NodeProgress, OutputFile, Phase, Placement
from comfyui_workflow.runs.parts import PartState
from comfyui_workflow.workflows.graph import Graph


class Durability(Enum):
    """The required safety of an event on disk before the next action."""

    SYNCED = "flushed to disk before the step is taken; survives a power failure"
    MUST = "written before the step is taken"
    STEP = "written at once; a full disk does not stop the run"
    TICK = "written with the next step, or after one second"


@dataclass(frozen=True, kw_only=True)
class Event:
    saving: ClassVar[Durability] = Durability.STEP
    """The required safety of the event on disk."""


@dataclass(frozen=True, kw_only=True)
class PhaseEntered(Event):
    """The server started an action that a person may have to wait for."""

    phase: Phase
    message: str | None = None


@dataclass(frozen=True, kw_only=True)
class AttemptFailed(Event):
    """An attempt failed with a transient error. The run retries."""

    message: str


@dataclass(frozen=True, kw_only=True)
class RunResumed(Event):
    """The server restarted and resumes the run. The run was not observed since its last event."""

    saving: ClassVar[Durability] = Durability.TICK


@dataclass(frozen=True, kw_only=True)
class NoticeAdded(Event):
    """Information for a person that needs no action."""

    message: str


@dataclass(frozen=True, kw_only=True)
class PriorityChanged(Event):
    saving: ClassVar[Durability] = Durability.SYNCED
    priority: int


@dataclass(frozen=True, kw_only=True)
class InstanceChosen(Event):
    """The run is assigned to this instance. It is on disk at the latest when the prompt is submitted
    there."""

    placement: Placement


@dataclass(frozen=True, kw_only=True)
class PortChosen(Event):
    """ComfyUI answers on this port of the instance. The run uses no other port there. On disk at the latest
    when the prompt is submitted."""

    port: int


@dataclass(frozen=True, kw_only=True)
class InstanceLeft(Event):
    """The run leaves its instance, to be assigned to another one. A prompt that was submitted there is given
    up, even if it still executes."""

    saving: ClassVar[Durability] = Durability.SYNCED
    message: str


@dataclass(frozen=True, kw_only=True)
class GraphPrepared(Event):
    """The graph to submit was prepared from the workflow: converted, with seeds drawn and inputs set. This
    happens once: a prompt that is submitted again is the same."""

    saving: ClassVar[Durability] = Durability.SYNCED
    graph: Graph


@dataclass(frozen=True, kw_only=True)
class PartnerNodesFound(Event):
    """The instance tells which nodes cost credits each time they execute. On disk at the latest when the
    prompt is submitted."""

    node_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class NodesPlanned(Event):
    """The nodes that will run are known, in their expected order."""

    nodes: tuple[NodeProgress, ...]


@dataclass(frozen=True, kw_only=True)
class PromptPrepared(Event):
    """The prompt is about to be submitted under this id. From now on ComfyUI is asked for the prompt before
    it is submitted again."""

    saving: ClassVar[Durability] = Durability.SYNCED
    prompt_id: str
    boot_marker: str | None
    process: str = ""
    """The token of the server process that sends the prompt."""


@dataclass(frozen=True, kw_only=True)
class PromptSentAgain(Event):
    """The prompt is about to be sent again under its id. ComfyUI was asked and does not have it."""

    saving: ClassVar[Durability] = Durability.MUST
    process: str = ""


@dataclass(frozen=True, kw_only=True)
class ExecutedTwice(Event):
    """A copy of the prompt began to execute too. This event is also accepted by a finished run."""

    message: str


@dataclass(frozen=True, kw_only=True)
class PromptAccepted(Event):
    """ComfyUI accepted the prompt under this id. Old versions of ComfyUI choose an id of their own."""

    saving: ClassVar[Durability] = Durability.MUST
    prompt_id: str


@dataclass(frozen=True, kw_only=True)
class PromptFound(Event):
    """ComfyUI has a prompt of a run whose record was damaged. It was found by the correlation data of the
    prompt."""

    saving: ClassVar[Durability] = Durability.SYNCED
    prompt_id: str
    submissions: int


@dataclass(frozen=True, kw_only=True)
class QueuePositionChanged(Event):
    saving: ClassVar[Durability] = Durability.TICK
    position: int


@dataclass(frozen=True, kw_only=True)
class ExecutionStarted(Event):
    pass


@dataclass(frozen=True, kw_only=True)
class NodesCached(Event):
    """ComfyUI has the results of these nodes from an earlier prompt."""

    node_ids: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class NodeStarted(Event):
    """A node started. With `ends_others`, all nodes that executed before have ended (ComfyUI before
    0.3.45)."""

    node_id: str
    ends_others: bool = False


@dataclass(frozen=True, kw_only=True)
class NodeStep:
    """Progress of one node: `value` of `maximum` steps."""

    value: float
    maximum: float
    is_finished: bool = False


@dataclass(frozen=True, kw_only=True)
class NodesAdvanced(Event):
    """Progress within nodes. Nodes that are not in `steps` are unchanged. `first_look` means the first
    progress report for the prompt: nodes that are finished in it may have finished long ago."""

    saving: ClassVar[Durability] = Durability.TICK
    steps: Mapping[str, NodeStep]
    first_look: bool = False


@dataclass(frozen=True, kw_only=True)
class ExecutionEnded(Event):
    """The prompt no longer executes. ComfyUI may have reported how long it executed, and since when, by its
    own clock."""

    saving: ClassVar[Durability] = Durability.TICK
    execution_s: float | None
    began_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class PromptSucceeded(Event):
    """ComfyUI finished the prompt. `outputs` is the complete list. The run is completed when all of them are
    downloaded."""

    saving: ClassVar[Durability] = Durability.MUST
    outputs: tuple[OutputFile, ...]


@dataclass(frozen=True, kw_only=True)
class OutputsFound(Event):
    """Outputs that a failed or cancelled prompt made before it ended."""

    outputs: tuple[OutputFile, ...]


@dataclass(frozen=True, kw_only=True)
class OutputsFetched(Event):
    """Outputs changed: each is now on the local disk, or its `error` gives the reason. Matched by key."""

    outputs: tuple[OutputFile, ...]


@dataclass(frozen=True, kw_only=True)
class OutputsUploaded(Event):
    """Outputs are now where the request wants them, or their `upload_error` gives the reason. Matched by
    key."""

    saving: ClassVar[Durability] = Durability.MUST
    outputs: tuple[OutputFile, ...]


@dataclass(frozen=True, kw_only=True)
class PromptVanished(Event):
    """The prompt is in neither queue nor history. It is lost, and is submitted again under a new id."""

    saving: ClassVar[Durability] = Durability.MUST
    message: str


@dataclass(frozen=True, kw_only=True)
class OutputsGone(Event):
    """ComfyUI took results from its cache, but their files are gone from the instance. The prompt is
    submitted once more, so that the nodes which save these files execute."""

    saving: ClassVar[Durability] = Durability.SYNCED
    node_ids: tuple[str, ...]
    message: str


@dataclass(frozen=True, kw_only=True)
class CancelRequested(Event):
    """A person requested the cancellation, or the server did for `reason`, which the ended run shows."""

    saving: ClassVar[Durability] = Durability.SYNCED
    reason: str | None = None
    unless_begun: bool = False
    """If true, the event changes nothing in a run that executes or whose cancellation was requested
    before."""


@dataclass(frozen=True, kw_only=True)
class PartAdded(Event):
    """A run that takes over a part is about to be saved. After a crash it is saved from this record."""

    saving: ClassVar[Durability] = Durability.SYNCED
    part: PartState


@dataclass(frozen=True, kw_only=True)
class PartChanged(Event):
    """A part has begun, ended or continues. A restart reads the part itself."""

    part: PartState


@dataclass(frozen=True, kw_only=True)
class PartsCompleted(Event):
    """All parts that count have ended, and their outputs are those of the run."""

    saving: ClassVar[Durability] = Durability.SYNCED
    outputs: tuple[OutputFile, ...]
    placement: Placement | None = None
    """An instance that made outputs, for a run without one of its own: its uploads need no instance, but an
    address."""


@dataclass(frozen=True, kw_only=True)
class PartsGathered(Event):
    """All parts have ended, and the prompt that makes the result of their files can be submitted. `outputs`
    are those of parts that belong to the run."""

    saving: ClassVar[Durability] = Durability.SYNCED
    graph: Graph
    files: tuple[str, ...]
    outputs: tuple[OutputFile, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RetryRequested(Event):
    """A failed run continues where it failed. The only event that reopens a finished run."""

    saving: ClassVar[Durability] = Durability.SYNCED


@dataclass(frozen=True, kw_only=True)
class RunCompleted(Event):
    saving: ClassVar[Durability] = Durability.SYNCED


@dataclass(frozen=True, kw_only=True)
class RunFailed(Event):
    saving: ClassVar[Durability] = Durability.SYNCED
    code: str
    message: str
    node_id: str | None = None
    comfyui_said: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunCancelled(Event):
    saving: ClassVar[Durability] = Durability.SYNCED
    message: str | None = None
