"""The only state machine: what an event does to a run."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from comfyui_workflow.runs.events import (
    CancelRequested,
    Event,
    ExecutionEnded,
    ExecutionStarted,
    GraphPrepared,
    InstanceChosen,
    InstanceLeft,
    NodesAdvanced,
    NodesCached,
    NodesPlanned,
    NodeStarted,
    NodeStep,
    NoticeGiven,
    OutputFetched,
    OutputsFound,
    PhaseEntered,
    PriorityChanged,
    PromptAccepted,
    PromptPrepared,
    PromptSucceeded,
    PromptVanished,
    QueuePositionChanged,
    RetryRequested,
    RunCancelled,
    RunCompleted,
    RunFailed,
    TroubleMet,
)
from comfyui_workflow.runs.model import NodeProgress, NodeStatus, OutputFile, Phase, Run, RunStatus

_WAITING = "Waiting in the queue of the instance"


def apply(run: Run, event: Event, at: datetime) -> Run:
    """The run after the event. A finished run comes back as the same object, whatever late message
    arrives; only a failed one is opened again, by a retry. `last_update` never goes backwards."""
    if run.is_finished != isinstance(event, RetryRequested):
        return run
    changed = _apply(run, event, max(at, run.last_update))
    return run if changed is run else replace(changed, last_update=max(at, run.last_update))


def _apply(run: Run, event: Event, at: datetime) -> Run:  # noqa: PLR0911, PLR0912 - one arm an event, by design
    match event:
        case PhaseEntered():
            return replace(run, phase=event.phase, message=event.message)
        case TroubleMet():
            lost_at = run.contact_lost_at or (at if run.gpu_since else None)
            return replace(run, phase=Phase.WAITING, message=event.message, contact_lost_at=lost_at)
        case NoticeGiven():
            return _with_notice(run, event.message)
        case PriorityChanged():
            return replace(run, priority=event.priority)
        case InstanceChosen():
            return replace(run, placement=event.placement)
        case InstanceLeft():
            return _left(run, event, at)
        case GraphPrepared():
            return replace(run, prepared_graph=event.graph)
        case NodesPlanned():
            return replace(run, nodes=_keep_progress(run.nodes, event.nodes))
        case PromptPrepared():
            return _prepared(run, event)
        case PromptAccepted():
            return _accepted(run, event)
        case QueuePositionChanged():
            return _at_position(run, event.position)
        case ExecutionStarted():
            return _started(run, at)
        case NodesCached():
            return _map_nodes(_started(run, at), lambda node: _cached(node, event.node_ids))
        case NodeStarted():
            return _node_started(_started(run, at), event)
        case NodesAdvanced():
            return _advanced(_started(run, at), event)
        case ExecutionEnded():
            return _executed_for(_started(run, at), at, event.execution_s)
        case PromptSucceeded():
            return _succeeded(run, event, at)
        case OutputsFound():
            return replace(run, outputs=_merge_outputs(run.outputs, event.outputs), phase=Phase.DOWNLOADING)
        case OutputFetched():
            return replace(run, outputs=_with_output(run.outputs, event.output))
        case PromptVanished():
            return _vanished(run, event.message, at)
        case CancelRequested():
            return replace(run, is_cancel_requested=True, cancel_reason=event.reason, message="Cancelling")
        case RetryRequested():
            return _reopened(run)
        case RunCompleted():
            return _ended(_map_nodes(run, _finished), RunStatus.COMPLETED, at)
        case RunFailed():
            return _failed(run, event, at)
        case RunCancelled():
            cancelled = _map_nodes(run, lambda node: _stopped(node, "Cancelled"))
            return replace(
                _ended(cancelled, RunStatus.CANCELLED, at), error_message=event.message or run.cancel_reason
            )
        case _:
            raise TypeError(f"no rule for {event!r}")


def _with_notice(run: Run, message: str) -> Run:
    return run if message in run.notices else replace(run, notices=(*run.notices, message))


def _keep_progress(
    before: tuple[NodeProgress, ...], planned: tuple[NodeProgress, ...]
) -> tuple[NodeProgress, ...]:
    known = {node.node_id: node for node in before}
    return tuple(known.get(node.node_id, node) for node in planned)


def _prepared(run: Run, event: PromptPrepared) -> Run:
    return replace(
        run,
        prompt_id=event.prompt_id,
        boot_marker=event.boot_marker,
        is_accepted=False,
        submissions=run.submissions + 1,
        phase=Phase.SUBMITTING,
        message="Submitting the prompt",
    )


def _accepted(run: Run, event: PromptAccepted) -> Run:
    """Execution may have been heard of before the answer to the submission came."""
    has_begun = run.status is RunStatus.EXECUTING
    return replace(
        run,
        prompt_id=event.prompt_id,
        is_accepted=True,
        phase=Phase.EXECUTING if has_begun else Phase.QUEUED,
        message=None if has_begun else _WAITING,
    )


def _at_position(run: Run, position: int) -> Run:
    if run.status is RunStatus.EXECUTING or (run.queue_position == position and run.phase is Phase.QUEUED):
        return run
    return replace(run, queue_position=position, phase=Phase.QUEUED, message=_WAITING)


def _started(run: Run, at: datetime) -> Run:
    if run.status is RunStatus.EXECUTING:
        is_seen = run.phase in (Phase.EXECUTING, Phase.DOWNLOADING)
        return run if is_seen else replace(run, phase=Phase.EXECUTING, message=None, contact_lost_at=None)
    return replace(
        run,
        status=RunStatus.EXECUTING,
        phase=Phase.EXECUTING,
        start_time=run.start_time or at,
        gpu_since=at,
        queue_position=None,
        message=None,
    )


def _map_nodes(run: Run, change: Callable[[NodeProgress], NodeProgress]) -> Run:
    nodes = tuple(change(node) for node in run.nodes)
    return run if nodes == run.nodes else replace(run, nodes=nodes)


def _cached(node: NodeProgress, cached: frozenset[str]) -> NodeProgress:
    if node.node_id not in cached or node.status is NodeStatus.EXECUTED:
        return node
    return replace(node, status=NodeStatus.EXECUTED, progress=100.0, message="Cached")


def _node_started(run: Run, event: NodeStarted) -> Run:
    def change(node: NodeProgress) -> NodeProgress:
        if node.node_id == event.node_id and node.status is NodeStatus.PENDING:
            return replace(node, status=NodeStatus.EXECUTING)
        if event.ends_others and node.node_id != event.node_id and node.status is NodeStatus.EXECUTING:
            return _executed(node)
        return node

    if all(node.node_id != event.node_id for node in run.nodes):
        return run
    return replace(_map_nodes(run, change), current_node_id=event.node_id)


def _executed(node: NodeProgress) -> NodeProgress:
    return replace(node, status=NodeStatus.EXECUTED, progress=100.0, message=None)


def _advanced(run: Run, event: NodesAdvanced) -> Run:
    changed = _map_nodes(run, lambda node: _stepped(node, event.steps.get(node.node_id)))
    running = [node.node_id for node in changed.nodes if node.status is NodeStatus.EXECUTING]
    if not running or changed.current_node_id in running:
        return changed
    return replace(changed, current_node_id=running[-1])


def _stepped(node: NodeProgress, step: NodeStep | None) -> NodeProgress:
    if step is None or node.status in (NodeStatus.EXECUTED, NodeStatus.FAILED):
        return node
    if step.is_finished:
        return _executed(node)
    share = min(1.0, max(0.0, step.value / step.maximum)) if step.maximum > 0 else 0.0
    message = f"Step {step.value:g}/{step.maximum:g}" if step.maximum > 1 else None
    return replace(
        node, status=NodeStatus.EXECUTING, progress=max(node.progress, round(100 * share, 1)), message=message
    )


def _succeeded(run: Run, event: PromptSucceeded, at: datetime) -> Run:
    """What we did not hear of is done too: it ran unheard, or was not needed (the branch of a lazy input,
    what lies behind a cached node)."""
    return replace(
        _map_nodes(_started(run, at), _finished),
        outputs=_merge_outputs(run.outputs, event.outputs),
        are_outputs_known=True,
        current_node_id=None,
        is_accepted=True,
        phase=Phase.DOWNLOADING,
        message="Fetching the outputs" if event.outputs else None,
    )


def _finished(node: NodeProgress) -> NodeProgress:
    return node if node.status is NodeStatus.EXECUTED else _executed(node)


def _merge_outputs(known: tuple[OutputFile, ...], found: tuple[OutputFile, ...]) -> tuple[OutputFile, ...]:
    by_key = {output.key: output for output in known}
    return tuple({output.key: by_key.get(output.key, output) for output in found}.values())


def _with_output(outputs: tuple[OutputFile, ...], changed: OutputFile) -> tuple[OutputFile, ...]:
    return tuple(changed if output.key == changed.key else output for output in outputs)


def _executed_for(run: Run, at: datetime, execution_s: float | None) -> Run:
    """What ComfyUI says is exact; otherwise it counts until we lost sight of it."""
    if run.gpu_since is None:
        return run
    seen_until = run.contact_lost_at or at
    seconds = max(0.0, (seen_until - run.gpu_since).total_seconds()) if execution_s is None else execution_s
    return replace(run, gpu_s=run.gpu_s + seconds, gpu_since=None, contact_lost_at=None)


def _left(run: Run, event: InstanceLeft, at: datetime) -> Run:
    """A graph that was made for that instance and never submitted is made anew for the next one."""
    if run.prompt_id is not None:
        reset = _vanished(run, event.message, at)
        return replace(reset, placement=None, outputs=(), are_outputs_known=False)
    return replace(run, placement=None, prepared_graph=None, phase=Phase.WAITING, message=event.message)


def _vanished(run: Run, message: str, at: datetime) -> Run:
    was_running = run.status is RunStatus.EXECUTING
    reset = _map_nodes(
        _executed_for(run, at, None),
        lambda node: replace(node, status=NodeStatus.PENDING, progress=0.0, message=message),
    )
    return replace(
        _with_notice(reset, message),
        status=RunStatus.QUEUED,
        phase=Phase.WAITING,
        message=message,
        prompt_id=None,
        is_accepted=False,
        boot_marker=None,
        times_lost_running=run.times_lost_running + was_running,
        queue_position=None,
        current_node_id=None,
        start_time=None,
    )


def _reopened(run: Run) -> Run:
    if run.status is not RunStatus.FAILED:
        return run
    has_begun = run.start_time is not None and run.is_accepted
    return replace(
        run,
        status=RunStatus.EXECUTING if has_begun else RunStatus.QUEUED,
        phase=Phase.WAITING,
        message="Trying again",
        is_cancel_requested=False,
        error_message=None,
        error_code=None,
        failed_node_id=None,
        end_time=None,
        outputs=tuple(replace(output, error=None) for output in run.outputs),
    )


def _failed(run: Run, event: RunFailed, at: datetime) -> Run:
    def change(node: NodeProgress) -> NodeProgress:
        if node.node_id == event.node_id:
            return replace(node, status=NodeStatus.FAILED, message=event.message)
        return _stopped(node, "Stopped")

    return replace(
        _ended(_map_nodes(run, change), RunStatus.FAILED, at),
        error_message=event.message,
        error_code=event.code,
        failed_node_id=event.node_id,
    )


def _stopped(node: NodeProgress, message: str) -> NodeProgress:
    """A node of a run that ended is not executing any more, and was not executed."""
    if node.status is not NodeStatus.EXECUTING:
        return node
    return replace(node, status=NodeStatus.PENDING, message=message)


def _ended(run: Run, status: RunStatus, at: datetime) -> Run:
    return replace(
        _executed_for(run, at, None),
        status=status,
        phase=Phase.FINISHED,
        message=None,
        queue_position=None,
        current_node_id=None,
        end_time=at,
    )
