"""What can happen to a run, in the past tense. `progress.apply` says what each does to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import ClassVar

from comfyui_workflow.runs.model import NodeProgress, OutputFile, Phase, Placement
from comfyui_workflow.workflows.graph import Graph


class Durability(Enum):
    """How much depends on the event being on disk before anything else happens."""

    SYNCED = "on disk even if the power fails now, or the step is not taken"
    MUST = "written, or the step is not taken"
    STEP = "saved at once; a full disk does not stop the run"
    TICK = "saved with the next step, or after a second"


@dataclass(frozen=True, kw_only=True)
class Event:
    saving: ClassVar[Durability] = Durability.STEP


@dataclass(frozen=True, kw_only=True)
class PhaseEntered(Event):
    """We began something that a person may have to wait for, before the prompt is in ComfyUI's hands."""

    phase: Phase
    message: str | None = None


@dataclass(frozen=True, kw_only=True)
class AttemptFailed(Event):
    """Something failed that can pass; the run goes on trying."""

    message: str


@dataclass(frozen=True, kw_only=True)
class RunResumed(Event):
    """This server has started, and goes on with the run: since its last step nobody has looked at it."""

    saving: ClassVar[Durability] = Durability.TICK


@dataclass(frozen=True, kw_only=True)
class NoticeAdded(Event):
    """Something a person should know and need not act on."""

    message: str


@dataclass(frozen=True, kw_only=True)
class PriorityChanged(Event):
    saving: ClassVar[Durability] = Durability.SYNCED
    priority: int


@dataclass(frozen=True, kw_only=True)
class InstanceChosen(Event):
    """The run goes to this instance. It is on disk at the latest with the prompt that is submitted there."""

    placement: Placement


@dataclass(frozen=True, kw_only=True)
class InstanceLeft(Event):
    """The run leaves its instance, to be given to another one. A prompt that was submitted there is given
    up, whatever becomes of it."""

    saving: ClassVar[Durability] = Durability.SYNCED
    message: str


@dataclass(frozen=True, kw_only=True)
class GraphPrepared(Event):
    """The graph to submit was made of the workflow: converted, seeds drawn, inputs set. Once and for all:
    a prompt that is submitted again is the same."""

    saving: ClassVar[Durability] = Durability.SYNCED
    graph: Graph


@dataclass(frozen=True, kw_only=True)
class NodesPlanned(Event):
    """It became known which nodes will run, in the order they are expected to."""

    nodes: tuple[NodeProgress, ...]


@dataclass(frozen=True, kw_only=True)
class PromptPrepared(Event):
    """The prompt is about to be submitted under this id. From here on we ask before we submit again."""

    saving: ClassVar[Durability] = Durability.SYNCED
    prompt_id: str
    boot_marker: str | None
    process: str = ""
    """The server process that sends it, by its token."""


@dataclass(frozen=True, kw_only=True)
class PromptSentAgain(Event):
    """The prompt is about to be sent once more under its id: ComfyUI was asked, and does not have it."""

    saving: ClassVar[Durability] = Durability.MUST
    process: str = ""


@dataclass(frozen=True, kw_only=True)
class ExecutedTwice(Event):
    """A copy of the prompt began as well. Also told of a finished run."""

    message: str


@dataclass(frozen=True, kw_only=True)
class PromptAccepted(Event):
    """ComfyUI has the prompt, under this id (an old ComfyUI chooses one of its own)."""

    saving: ClassVar[Durability] = Durability.MUST
    prompt_id: str


@dataclass(frozen=True, kw_only=True)
class PromptFound(Event):
    """ComfyUI has a prompt of a run whose record was damaged, found by what goes along with it."""

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
    """A node began. With `ends_others`, whatever ran before has thereby ended (ComfyUI before 0.3.45)."""

    node_id: str
    ends_others: bool = False


@dataclass(frozen=True, kw_only=True)
class NodeStep:
    """How far one node is: `value` of `maximum` steps."""

    value: float
    maximum: float
    is_finished: bool = False


@dataclass(frozen=True, kw_only=True)
class NodesAdvanced(Event):
    """Steps within nodes; what is not named stays as it was. At the `first_look` at a prompt, what is
    finished may have been so for long."""

    saving: ClassVar[Durability] = Durability.TICK
    steps: Mapping[str, NodeStep]
    first_look: bool = False


@dataclass(frozen=True, kw_only=True)
class ExecutionEnded(Event):
    """The prompt executes no more; ComfyUI itself may have told for how long it did, and since when, by a
    clock of its own."""

    saving: ClassVar[Durability] = Durability.TICK
    execution_s: float | None
    began_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class PromptSucceeded(Event):
    """ComfyUI finished; `outputs` is all it made. The run is not completed before they are here."""

    saving: ClassVar[Durability] = Durability.MUST
    outputs: tuple[OutputFile, ...]


@dataclass(frozen=True, kw_only=True)
class OutputsFound(Event):
    """What a prompt that failed or was cancelled made before it ended."""

    outputs: tuple[OutputFile, ...]


@dataclass(frozen=True, kw_only=True)
class OutputsFetched(Event):
    """Outputs changed: each is here now, on the disk, or its `error` says why it is not. Matched by their
    keys."""

    outputs: tuple[OutputFile, ...]


@dataclass(frozen=True, kw_only=True)
class PromptVanished(Event):
    """In neither queue nor history: the prompt is lost, and will be submitted again under a new id."""

    saving: ClassVar[Durability] = Durability.MUST
    message: str


@dataclass(frozen=True, kw_only=True)
class CancelRequested(Event):
    """By a person; or for the `reason`, which the run tells when it has ended."""

    saving: ClassVar[Durability] = Durability.SYNCED
    reason: str | None = None
    unless_begun: bool = False
    """Then nothing is asked of a run that executes, or that was asked before."""


@dataclass(frozen=True, kw_only=True)
class RetryRequested(Event):
    """A failed run is taken up again where it failed. The only event that opens a finished run."""

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
