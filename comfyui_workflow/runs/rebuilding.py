"""A run whose record is damaged, made anew of the parts that are whole. Pure.

It never leads to a second execution: a run that may have a prompt looks for it at its instance, and submits
none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from comfyui_workflow.runs.codec import SubmissionRecord
from comfyui_workflow.runs.model import (
    Graph,
    Lost,
    Phase,
    Placement,
    Run,
    RunRequest,
    RunStatus,
    time_of_id,
)
from comfyui_workflow.runs.summary import RunSummary
from comfyui_workflow.workflows.graph import planned_nodes, sink_ids

DAMAGED = "record_damaged"
"""The error code of a run that could not go on since its record was damaged."""
_ORDER_ANEW = "Its workflow is lost: execute it anew"
_UNKNOWN = "unknown (its record was damaged)"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What can be read of a record; None for a part that is damaged or was never there."""

    workflow_id: str
    request: RunRequest | None
    """Its graph is empty where the workflow is lost."""
    graph: Graph | None
    state: Run | None
    """Of run.json, with the request and graph of here."""
    submission: SubmissionRecord | None
    summary: RunSummary | None
    troubles: Mapping[str, str]
    """Reasons by the names of the damaged files."""
    is_finished: bool
    """The record lay among those of finished runs."""
    tells_submissions: bool
    """The release that wrote it kept a submission.json once a prompt was submitted."""


def request_of(parts: Parts) -> RunRequest:
    """The request; where it is damaged, that of the submission, or what the summary tells."""
    if parts.request is not None:
        return parts.request
    if parts.submission is not None:
        return parts.submission.request
    summary = parts.summary
    return RunRequest(
        ssh_connection=summary.ssh_connection if summary else "",
        graph={},
        workflow_name=summary.workflow_name if summary else _UNKNOWN,
        workflow_file=summary.workflow_file if summary else None,
        batch_id=summary.batch_id if summary else None,
        output_dir="",
        comfyui_port=1,
        comfyui_input_dir="",
        comfyui_output_dir="",
    )


def rebuilt(parts: Parts) -> Run:
    """Ready to be kept: it goes on, or has ended and says why."""
    run = _rebuilt_state(parts) if parts.state is None else _rebuilt_around(parts, parts.state)
    return replace(run, notices=(*run.notices, _notice(parts)))


def _notice(parts: Parts) -> str:
    files = "; ".join(f"{name}: {reason}" for name, reason in parts.troubles.items())
    return f"A part of the record of this run was damaged and is kept aside ({files})"


def _rebuilt_around(parts: Parts, state: Run) -> Run:
    """Where run.json is whole."""
    lost = set(state.lost)
    if "graph.json" in parts.troubles:
        lost.add(Lost.GRAPH)
    if not state.request.graph and state.request.editor_file is None:
        lost.add(Lost.WORKFLOW)
    run = replace(state, lost=frozenset(lost))
    if run.is_finished or run.graph or run.request.editor_file is not None:
        return run
    if run.request.output_dir and (run.prompt_id is not None or run.are_outputs_known):
        return run  # what was submitted is followed to its end
    return _failed(run, f"The record of the run was damaged on this machine. {_there(run)}{_ORDER_ANEW}")


def _rebuilt_state(parts: Parts) -> Run:
    """Where run.json is not."""
    if parts.summary is not None and parts.is_finished:
        return _rebuilt_from_summary(parts, parts.summary)
    run = _as_ordered(parts)
    if parts.is_finished:
        return _failed(
            replace(run, lost=run.lost | {Lost.STATE}),
            "The run had ended, and the record of how was damaged on this machine. Its files may be in "
            f"{run.request.output_dir or 'its output directory'}; a retry asks the instance for its outputs",
        )
    if parts.submission is not None and run.request.output_dir:
        return _submitted(run, parts.submission)
    can_submit = bool(run.graph) or run.request.editor_file is not None
    if not can_submit:
        return _failed(run, f"The record of the run was damaged on this machine. {_ORDER_ANEW}")
    if parts.tells_submissions and "submission.json" not in parts.troubles:
        return replace(run, lost=run.lost | {Lost.PROGRESS})
    return _failed(
        replace(run, lost=run.lost | {Lost.STATE}),
        "The record of the run was damaged on this machine, and its prompt may have been submitted. A retry "
        "looks for it at the instance and fetches what it made; it submits nothing",
    )


def _as_ordered(parts: Parts) -> Run:
    request = request_of(parts)
    graph = parts.graph or request.graph
    at = _created_at(parts.workflow_id)
    is_lost = not request.graph and request.editor_file is None
    return Run(
        workflow_id=parts.workflow_id,
        request=request,
        queue_time=at,
        last_update=at,
        nodes=planned_nodes(graph, sink_ids(graph)) if graph else (),
        priority=request.priority,
        prepared_graph=parts.graph,
        lost=frozenset({Lost.WORKFLOW} if is_lost else ()),
    )


def _submitted(run: Run, submission: SubmissionRecord) -> Run:
    return replace(
        run,
        prompt_id=submission.prompt_id,
        boot_marker=submission.boot_marker,
        submissions=submission.submissions,
        placement=submission.placement,
        lost=run.lost | {Lost.STATE},
    )


def _rebuilt_from_summary(parts: Parts, summary: RunSummary) -> Run:
    ordered = _as_ordered(parts)
    run = replace(ordered, **_told(summary), placement=placement_told(summary, ordered.request))  # type: ignore[arg-type]
    if summary.status is not RunStatus.COMPLETED:
        return replace(run, lost=run.lost | {Lost.STATE})
    where = run.request.output_dir or "its output directory"
    message = (
        "The run was completed, and the list of its outputs was damaged on this machine. Its files should be "
        f"in {where}; a retry asks the instance for them again, without running anything"
    )
    failed = _failed(replace(run, lost=run.lost | {Lost.STATE}), message)
    return replace(failed, end_time=summary.end_time, last_update=summary.last_update)


def _told(summary: RunSummary) -> dict[str, object]:
    """Fields of a run that its summary tells."""
    return {
        "priority": summary.priority,
        "status": summary.status,
        "phase": summary.phase,
        "prompt_id": summary.prompt_id,
        "submissions": summary.submissions,
        "error_message": summary.error_message,
        "error_code": summary.error_code,
        "failed_node_id": summary.failed_node_id,
        "queue_time": summary.queue_time,
        "last_update": summary.last_update,
        "start_time": summary.start_time,
        "end_time": summary.end_time,
        "gpu_s": summary.gpu_s,
        "stays": summary.stays,
        "graph_signature": summary.graph_signature,
    }


def placement_told(summary: RunSummary, request: RunRequest) -> Placement | None:
    """Where the run was, for its retry; None where only its ssh string tells."""
    if summary.instance_id is None or summary.instance_name is None:
        return None
    return Placement(
        instance_id=summary.instance_id,
        name=summary.instance_name,
        ssh_connection=request.ssh_connection,
        comfyui_port=request.comfyui_port,
        comfyui_input_dir=request.comfyui_input_dir,
        comfyui_output_dir=request.comfyui_output_dir,
        price_per_hour=summary.price_per_hour,
        reason="the record of the run says so",
    )


def _failed(run: Run, message: str) -> Run:
    return replace(
        run,
        status=RunStatus.FAILED,
        phase=Phase.FINISHED,
        message=None,
        error_code=DAMAGED,
        error_message=message,
        end_time=run.end_time or run.last_update,
        gpu_since=None,
        contact_lost_at=None,
    )


def _there(run: Run) -> str:
    if run.prompt_id is None:
        return ""
    return f"Its prompt {run.prompt_id} may be at {run.ssh_connection or 'its instance'}. "


def _created_at(workflow_id: str) -> datetime:
    try:
        return max(time_of_id(workflow_id), datetime(1970, 1, 2, tzinfo=UTC))
    except ValueError:
        return datetime(1970, 1, 2, tzinfo=UTC)
