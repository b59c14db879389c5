"""The state machine of a run: defines how each event changes it.

How it works. `apply` is a pure function of a run, an event and a time. It returns the changed run, or the
same object if the event changes nothing. Nothing else changes a run. The state has several parts, which the
events move almost independently.

The status, which clients see (`phase` is finer: it names the current action of the server):

    queued -> executing                  the first event that proves execution (NodeStarted, ...)
    executing -> queued                  PromptVanished, OutputsGone, InstanceLeft: submitted again
    queued, executing -> finished        RunCompleted, RunFailed, RunCancelled
    failed -> queued, executing          RetryRequested: the run continues where it failed

The prompt:

    no prompt_id -> prompt_id            PromptPrepared, before the prompt is sent; counts a submission
    prompt_id -> is_accepted             PromptAccepted, PromptFound; repeated sends are PromptSentAgain
    is_accepted -> are_outputs_known     PromptSucceeded: the list of outputs is complete
                                         OutputsFetched, then OutputsUploaded if the request has a target
    any -> no prompt_id                  PromptVanished, OutputsGone, InstanceLeft

The GPU time: `gpu_since` is the start of the current execution. When the connection fails or the server
restarts, `contact_lost_at` marks the time until which the execution was observed; the next event of the
prompt clears it. At the end, ComfyUI's own duration is added to `gpu_s` if it is known, else the observed
time.

The parts of a run (`runs.parts`): their runs move on their own, and PartChanged copies their state.

    waits_for_parts -> waits_for_parts   PartAdded, PartChanged: executing as soon as one part is
    waits_for_parts -> are_parts_done    PartsCompleted: the outputs are known, without a prompt of the run
                                         PartsGathered: the run has a graph, and goes on as any other
    failed -> waits_for_parts            RetryRequested, if the parts are not done

A finished run is final: late messages return the same object. Two events are exceptions: RetryRequested for a
failed run, and ExecutedTwice, which adds a notice. Events may arrive late, out of order or not at all:
execution may be reported before the response to the submission, so each event that proves execution also
starts it. The clock may be set back: `last_update` never decreases.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from comfyui_workflow.errors import InvalidAddress
from comfyui_workflow.runs import nodes
from comfyui_workflow.runs.events import (
    AttemptFailed,
    CancelRequested,
    Event,
    ExecutedTwice,
    ExecutionEnded,
    ExecutionStarted,
    GraphPrepared,
    InstanceChosen,
    InstanceLeft,
    NodesAdvanced,
    NodesCached,
    NodesPlanned,
    NodeStarted,
    NoticeAdded,
    OutputsFetched,
    OutputsFound,
    OutputsGone,
    OutputsUploaded,
    PartAdded,
    PartChanged,
    PartnerNodesFound,
    PartsCompleted,
    PartsGathered,
    PhaseEntered,
    PortChosen,
    PriorityChanged,
    PromptAccepted,
    PromptFound,
    PromptPrepared,
    PromptSentAgain,
    PromptSucceeded,
    PromptVanished,
    QueuePositionChanged,
    RetryRequested,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunResumed,
)
from comfyui_workflow.runs.model import (
    NOT_RESUBMITTED,
    LostParts,
    NodeProgress,
    NodeStatus,
    OutputFile,
    Phase,
    Placement,
    Run,
    RunStatus,
    Stay,
    seconds_here,
)
from comfyui_workflow.runs.parts import Partial, PartState, with_part
from comfyui_workflow.workflows.signature import signature

CACHED = "Cached"
"""Message of a node that did not execute, because ComfyUI had its results."""
MOST_NOTICES = 100
"""Limit for one run: an instance may report any number."""
INSTANCE_LOST = "instance_lost"
"""Error code of a part whose instance does not answer any more, and that may not move."""
_WAITING = "Waiting in the queue of the instance"


def apply(run: Run, event: Event, at: datetime) -> Run:
    """Returns the run after the event; the same object if the event changes nothing. `at` is the time of the
    event."""
    if run.is_finished and isinstance(event, ExecutedTwice):
        return _with_notice(run, event.message)
    if run.is_finished != isinstance(event, RetryRequested):
        return run
    changed = _apply(run, event, max(at, run.last_update))
    return run if changed is run else replace(changed, last_update=max(at, run.last_update))


def _apply(run: Run, event: Event, at: datetime) -> Run:  # noqa: PLR0911, PLR0912 - one case for each event, by design
    match event:
        case PhaseEntered():
            return replace(run, phase=event.phase, message=event.message)
        case AttemptFailed():
            return _attempt_failed(run, event.message, at)
        case RunResumed():
            return run if run.executes_since is None else replace(run, contact_lost_at=run.last_update)
        case NoticeAdded() | ExecutedTwice():
            return _with_notice(run, event.message)
        case PriorityChanged():
            return replace(run, priority=event.priority)
        case InstanceChosen():
            return _placed(run, event.placement)
        case PortChosen():
            return replace(run, chosen_port=event.port)
        case InstanceLeft():
            return _left(run, event, at)
        case GraphPrepared():
            lost = run.lost - {LostParts.GRAPH}
            return replace(run, prepared_graph=event.graph, graph_signature=signature(event.graph), lost=lost)
        case PartnerNodesFound():
            return replace(run, partner_nodes=event.node_ids)
        case NodesPlanned():
            return replace(run, nodes=_keep_progress(run.nodes, event.nodes))
        case PromptPrepared():
            return _prepared(run, event, at)
        case PromptSentAgain():
            return _sent_again(run, event.process, at)
        case PromptAccepted():
            return _accepted(run, event)
        case PromptFound():
            found = replace(run, submissions=event.submissions, boot_marker=None)
            return _accepted(found, PromptAccepted(prompt_id=event.prompt_id))
        case QueuePositionChanged():
            return _at_position(run, event.position)
        case ExecutionStarted():
            return _started(run, at)
        case NodesCached():
            return _map_nodes(_started(run, at), lambda node: nodes.cached(node, event.node_ids))
        case NodeStarted():
            return _node_started(_started(run, at), event, at)
        case NodesAdvanced():
            return _advanced(_started(run, at), event, at)
        case ExecutionEnded():
            return _execution_ended(_with_end_of_nodes(run, at), event, at)
        case PromptSucceeded():
            return _succeeded(run, event, at)
        case OutputsFound():
            return replace(run, outputs=_merge_outputs(run.outputs, event.outputs), phase=Phase.DOWNLOADING)
        case OutputsFetched():
            return replace(run, outputs=_with_outputs(run.outputs, event.outputs))
        case OutputsUploaded():
            return replace(run, outputs=_with_outputs(run.outputs, event.outputs))
        case PromptVanished():
            return _vanished(run, event.message, at)
        case OutputsGone():
            return _saved_again(run, event, at)
        case PartAdded() | PartChanged():
            return _part_changed(run, event.part, at)
        case PartsCompleted():
            return _parts_completed(run, event)
        case PartsGathered():
            return _parts_gathered(run, event)
        case CancelRequested():
            return _cancel_requested(run, event)
        case RetryRequested():
            return _reopened(run, at)
        case RunCompleted():
            return _ended(_map_nodes(run, nodes.executed), RunStatus.COMPLETED, at)
        case RunFailed():
            return _failed(run, event, at)
        case RunCancelled():
            cancelled = _map_nodes(run, lambda node: nodes.stopped(node, "Cancelled"))
            return replace(
                _ended(cancelled, RunStatus.CANCELLED, at), error_message=event.message or run.cancel_reason
            )
        case _:
            raise TypeError(f"no rule for {event!r}")


def _with_notice(run: Run, message: str) -> Run:
    is_known = message in run.notices or len(run.notices) >= MOST_NOTICES
    return run if is_known else replace(run, notices=(*run.notices, message))


def _keep_progress(
    before: tuple[NodeProgress, ...], planned: tuple[NodeProgress, ...]
) -> tuple[NodeProgress, ...]:
    known = {node.node_id: node for node in before}
    return tuple(known.get(node.node_id, node) for node in planned)


def _prepared(run: Run, event: PromptPrepared, at: datetime) -> Run:
    return replace(
        run,
        prompt_id=event.prompt_id,
        boot_marker=event.boot_marker,
        is_accepted=False,
        submissions=run.submissions + 1,
        sent_by=(event.process,),
        sent_at=at,
        lost=run.lost - {LostParts.PROGRESS},
        phase=Phase.SUBMITTING,
        message="Submitting the prompt",
    )


def _sent_again(run: Run, process: str, at: datetime) -> Run:
    message = "Submitting the prompt again"
    sent_by = (*run.sent_by, process)
    return replace(run, sent_by=sent_by, sent_at=at, phase=Phase.SUBMITTING, message=message)


def _attempt_failed(run: Run, message: str, at: datetime) -> Run:
    """If the prompt was being sent when the attempt failed, the time of sending is now."""
    return replace(
        run,
        phase=Phase.WAITING,
        message=message,
        contact_lost_at=run.contact_lost_at or (at if run.gpu_since else None),
        sent_at=at if run.phase is Phase.SUBMITTING else run.sent_at,
    )


def _accepted(run: Run, event: PromptAccepted) -> Run:
    """Execution may be reported before the response to the submission."""
    has_begun = run.status is RunStatus.EXECUTING
    return replace(
        run,
        prompt_id=event.prompt_id,
        is_accepted=True,
        lost=run.lost - {LostParts.STATE, LostParts.PROGRESS},
        phase=Phase.EXECUTING if has_begun else Phase.QUEUED,
        message=None if has_begun else _WAITING,
    )


def _at_position(run: Run, position: int) -> Run:
    if run.status is RunStatus.EXECUTING or (run.queue_position == position and run.phase is Phase.QUEUED):
        return run
    return replace(run, queue_position=position, phase=Phase.QUEUED, message=_WAITING)


def _started(run: Run, at: datetime) -> Run:
    if run.status is RunStatus.EXECUTING:
        is_seen = run.contact_lost_at is None and run.phase in (Phase.EXECUTING, Phase.DOWNLOADING)
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


def _node_started(run: Run, event: NodeStarted, at: datetime) -> Run:
    def change(node: NodeProgress) -> NodeProgress:
        if node.node_id == event.node_id:
            return nodes.started(node, at)
        return nodes.executed(node, at) if event.ends_others and _is_executing(node) else node

    if all(node.node_id != event.node_id for node in run.nodes):
        return run
    return replace(_map_nodes(run, change), current_node_id=event.node_id)


def _is_executing(node: NodeProgress) -> bool:
    return node.status is NodeStatus.EXECUTING


def _advanced(run: Run, event: NodesAdvanced, at: datetime) -> Run:
    def change(node: NodeProgress) -> NodeProgress:
        step = event.steps.get(node.node_id)
        return node if step is None else nodes.stepped(node, step, None if event.first_look else at)

    changed = _map_nodes(run, change)
    running = [node.node_id for node in changed.nodes if _is_executing(node)]
    if not running or changed.current_node_id in running:
        return changed
    return replace(changed, current_node_id=running[-1])


def _succeeded(run: Run, event: PromptSucceeded, at: datetime) -> Run:
    """All other nodes are executed too: their messages were missed, or they were not needed (the branch of a
    lazy input, the nodes behind a cached node). ComfyUI does not list every cached output again, so outputs
    that came from the earlier prompt stay, and those of parts."""
    earlier = run.outputs if run.saved_again else _outputs_of_parts(run)
    return replace(
        _map_nodes(_started(run, at), nodes.executed),
        outputs=_merge_outputs(run.outputs, (*earlier, *event.outputs)),
        are_outputs_known=True,
        current_node_id=None,
        is_accepted=True,
        phase=Phase.DOWNLOADING,
        message="Fetching the outputs" if event.outputs else None,
    )


def _merge_outputs(known: tuple[OutputFile, ...], found: tuple[OutputFile, ...]) -> tuple[OutputFile, ...]:
    """A known output keeps its data if the found output is the same file."""
    by_key = {output.key: output for output in known}
    return tuple({each.key: _merged(by_key.get(each.key), each) for each in found}.values())


def _merged(known: OutputFile | None, found: OutputFile) -> OutputFile:
    """The file is the same if the same prompt made it, or if it came from the cache after it was
    downloaded."""
    if known is None:
        return found
    is_same = known.made_before == found.made_before or (found.is_cached and known.is_downloaded)
    return known if is_same else found


def _with_outputs(outputs: tuple[OutputFile, ...], changed: tuple[OutputFile, ...]) -> tuple[OutputFile, ...]:
    by_key = {output.key: output for output in changed}
    # names first: keys are slower to compare, and there may be thousands of outputs
    names = {output.filename for output in changed}
    return tuple(by_key.get(each.key, each) if each.filename in names else each for each in outputs)


def _with_end_of_nodes(run: Run, at: datetime) -> Run:
    """Nodes that were executing have ended with the prompt. Their end time is set only if the execution was
    observed."""
    if run.phase is not Phase.EXECUTING:
        return run
    return _map_nodes(run, lambda node: nodes.ended_with_prompt(node, at))


def _execution_ended(run: Run, event: ExecutionEnded, at: datetime) -> Run:
    """If the start was not observed, ComfyUI's start time is used, limited to possible values because clocks
    differ."""
    since_ordered_s = max(0.0, (at - run.queue_time).total_seconds())
    latest = at - timedelta(seconds=min(event.execution_s or 0.0, since_ordered_s))
    if run.status is not RunStatus.EXECUTING:
        run = _started(run, min(max(event.began_at or latest, run.queue_time), latest))
    ended = _executed_for(run, at, event.execution_s)
    return replace(ended, start_time=min(run.start_time or latest, latest))


def _executed_for(run: Run, at: datetime, execution_s: float | None) -> Run:
    """The duration that ComfyUI reports is exact. Otherwise the time counts until contact was lost."""
    if run.gpu_since is None:
        return run
    seen_until = run.contact_lost_at or at
    seconds = max(0.0, (seen_until - run.gpu_since).total_seconds()) if execution_s is None else execution_s
    return replace(run, gpu_s=run.gpu_s + seconds, gpu_since=None, contact_lost_at=None)


def _left(run: Run, event: InstanceLeft, at: datetime) -> Run:
    """A graph that was prepared for that instance and never submitted is prepared again for the next
    instance. A part that may not run twice fails."""
    part = run.request.part
    if part is not None and part.partial is not Partial.MOVE and run.prompt_id is not None:
        return _failed(run, RunFailed(code=INSTANCE_LOST, message=event.message), at)
    left = replace(run, outputs=_outputs_of_parts(run), are_outputs_known=False, saved_again=())
    if run.prompt_id is not None:
        return _without_placement(_vanished(left, event.message, at))
    prepared = run.prepared_graph if run.are_parts_done else None
    return replace(
        _without_placement(left), prepared_graph=prepared, phase=Phase.WAITING, message=event.message
    )


def _outputs_of_parts(run: Run) -> tuple[OutputFile, ...]:
    return tuple(output for output in run.outputs if output.part is not None)


def _without_placement(run: Run) -> Run:
    """Keeps the GPU time at this instance and its price as a stay."""
    run = replace(run, chosen_port=None)
    here_s = seconds_here(run.gpu_s, run.stays)
    if run.placement is None or not here_s:
        return replace(run, placement=None)
    price = run.placement.price_per_hour
    stay = Stay(instance_id=run.placement.instance_id, gpu_s=here_s, price_per_hour=price)
    return replace(run, placement=None, stays=(*run.stays, stay))


def _placed(run: Run, chosen: Placement) -> Run:
    """The port of a submitted prompt stays chosen while its machine has the same address, whatever the data
    of the instance are now: the prompt is there."""
    placed = replace(run, placement=_at_known_price(run.placement, chosen))
    stays = run.prompt_id is not None and _machine_of(run) == _machine_of(placed)
    return placed if stays else replace(placed, chosen_port=None)


def _machine_of(run: Run) -> tuple[str, int, str] | None:
    try:
        address = run.address
    except InvalidAddress:
        return None
    return (address.host, address.port, address.user)


def _at_known_price(before: Placement | None, chosen: Placement) -> Placement:
    """A run that is already at an instance keeps the price it had when it was assigned."""
    if before is None or before.instance_id != chosen.instance_id or before.price_per_hour is None:
        return chosen
    return replace(chosen, price_per_hour=before.price_per_hour)


def _part_changed(run: Run, part: PartState, at: datetime) -> Run:
    """A part that executes, or has executed, has begun the run."""
    parts = with_part(run.parts, part)
    changed = run if parts == run.parts else replace(run, parts=parts)
    has_begun = part.status in (RunStatus.EXECUTING, RunStatus.COMPLETED)
    if not (has_begun and run.waits_for_parts and run.status is RunStatus.QUEUED):
        return changed
    return replace(
        changed,
        status=RunStatus.EXECUTING,
        phase=Phase.EXECUTING,
        start_time=run.start_time or at,
        message=run.message if run.is_cancel_requested else None,
    )


def _parts_completed(run: Run, event: PartsCompleted) -> Run:
    if not run.waits_for_parts:
        return run
    return replace(
        _map_nodes(run, nodes.executed),
        outputs=event.outputs,
        are_outputs_known=True,
        are_parts_done=True,
        placement=run.placement or event.placement,
        phase=Phase.DELIVERING,
        message=None,
    )


def _parts_gathered(run: Run, event: PartsGathered) -> Run:
    """The graph is prepared for the master, and stays. The outputs of parts stay beside those of the
    prompt."""
    if not run.waits_for_parts:
        return run
    return replace(
        run,
        prepared_graph=event.graph,
        graph_signature=signature(event.graph),
        gathered_files=event.files,
        outputs=event.outputs,
        are_parts_done=True,
        phase=Phase.WAITING,
        message="The files of all parts are here",
    )


def _vanished(run: Run, message: str, at: datetime) -> Run:
    was_running = run.status is RunStatus.EXECUTING
    reset = _map_nodes(_executed_for(run, at, None), lambda node: nodes.restarted(node, message))
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


def _saved_again(run: Run, event: OutputsGone, at: datetime) -> Run:
    """The downloaded outputs are kept: the next prompt has the results of all other nodes from the cache."""
    reset = _vanished(run, event.message, at)
    return replace(
        reset,
        times_lost_running=run.times_lost_running,
        are_outputs_known=False,
        saved_again=event.node_ids,
        outputs=tuple(output for output in run.outputs if output.is_downloaded),
    )


def _cancel_requested(run: Run, event: CancelRequested) -> Run:
    if event.unless_begun and (run.status is not RunStatus.QUEUED or run.is_cancel_requested):
        return run
    return replace(run, is_cancel_requested=True, cancel_reason=event.reason, message="Cancelling")


def _reopened(run: Run, at: datetime) -> Run:
    if run.status is not RunStatus.FAILED:
        return run
    if run.error_code == NOT_RESUBMITTED:
        run = _vanished(run, "The prompt is submitted again, as requested", at)
    has_begun = run.start_time is not None and run.is_accepted
    was_submitted = run.submissions > 0 or bool(run.lost)
    return replace(
        run,
        chosen_port=run.chosen_port if was_submitted else None,
        status=RunStatus.EXECUTING if has_begun else RunStatus.QUEUED,
        phase=Phase.WAITING,
        message="Trying again",
        is_cancel_requested=False,
        error_message=None,
        error_code=None,
        failed_node_id=None,
        comfyui_said=None,
        end_time=None,
        outputs=tuple(replace(output, error=None, upload_error=None) for output in run.outputs),
    )


def _failed(run: Run, event: RunFailed, at: datetime) -> Run:
    def change(node: NodeProgress) -> NodeProgress:
        if node.node_id == event.node_id:
            return replace(node, status=NodeStatus.FAILED, message=event.message)
        return nodes.stopped(node, "Stopped")

    return replace(
        _ended(_map_nodes(run, change), RunStatus.FAILED, at),
        error_message=event.message,
        error_code=event.code,
        failed_node_id=event.node_id,
        comfyui_said=event.comfyui_said,
    )


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
