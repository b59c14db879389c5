"""Rebuilds a run whose record is damaged from the parts that can be read. Pure.

The rebuilt run never executes a second time: if it may have a prompt, the server looks for that prompt at the
instance and submits none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from comfyui_workflow.runs.codec import SubmissionRecord
from comfyui_workflow.runs.model import (
    DAMAGED,
    LostParts,
    Phase,
    Placement,
    Run,
    RunRequest,
    RunStatus,
    time_of_id,
)
from comfyui_workflow.runs.nodes import planned_nodes
from comfyui_workflow.runs.summary import RunSummary
from comfyui_workflow.runs.target import target_of_record
from comfyui_workflow.workflows.graph import Graph, sink_ids
from comfyui_workflow.workflows.model import Workflow

LOG, GRAPH, SUBMISSION = "run.jsonl", "graph.json", "submission.json"
_EXECUTE_AGAIN = "Its workflow is lost. Execute it again"
_UNKNOWN = "unknown (its record was damaged)"


@dataclass(frozen=True, kw_only=True)
class RecordParts:
    """The readable parts of a record. None for a part that is damaged or never existed."""

    run_id: str
    request: RunRequest | None
    """Its workflow is empty if the workflow is lost."""
    graph: Graph | None
    state: Run | None
    """The state from the readable part of the log, with the `request` and `graph` above. If `troubles`
    contains the log, this is an earlier state."""
    submission: SubmissionRecord | None
    summary: RunSummary | None
    troubles: Mapping[str, str]
    """Reasons by the names of the damaged files."""
    is_finished: bool
    """The record was in the directory of finished runs."""
    tells_submissions: bool
    """The release that wrote the record stored a submission.json for each submitted prompt."""


def request_of(parts: RecordParts) -> RunRequest:
    """The request. If it is damaged: the request of the submission record, or else what the summary
    contains."""
    if parts.request is not None:
        return parts.request
    if parts.submission is not None:
        return parts.submission.request
    summary = parts.summary
    return RunRequest(
        target=target_of_record(summary.ssh_connection if summary else ""),
        workflow=Workflow(graph={}),
        workflow_name=summary.workflow_name if summary else _UNKNOWN,
        workflow_file=summary.workflow_file if summary else None,
        batch_id=summary.batch_id if summary else None,
        output_dir="",
        comfyui_port=1,
        comfyui_input_dir="",
        comfyui_output_dir="",
    )


def rebuild_run(parts: RecordParts) -> Run:
    """The rebuilt run, ready to be stored. It continues, or it has ended with the reason."""
    if parts.state is not None and LOG not in parts.troubles:
        run = _rebuilt_around(parts, parts.state)
    elif parts.is_finished:
        run = _rebuilt_end(parts)
    else:
        run = _rebuilt_state(parts)
    return replace(run, notices=(*run.notices, _notice(parts)))


def _notice(parts: RecordParts) -> str:
    files = "; ".join(f"{name}: {reason}" for name, reason in parts.troubles.items())
    return f"A part of the record of this run was damaged and is kept aside ({files})"


def _rebuilt_around(parts: RecordParts, state: Run) -> Run:
    """Rebuilds a run whose log is readable."""
    lost = set(state.lost)
    if GRAPH in parts.troubles and state.submissions > 0:
        lost.add(LostParts.GRAPH)
    elif GRAPH in parts.troubles and state.parts and not state.is_finished:
        state = replace(state, are_parts_done=False)  # the graph is made again from the files of the parts
    if state.request.workflow.is_lost:
        lost.add(LostParts.WORKFLOW)
    run = replace(state, lost=frozenset(lost))
    if run.is_finished or run.graph or not run.request.workflow.is_lost:
        return run
    if run.request.output_dir and (run.prompt_id is not None or run.are_outputs_known):
        return run  # the submitted prompt is followed to its end
    return _failed(
        run, f"The record of the run was damaged on this machine. {_prompt_location(run)}{_EXECUTE_AGAIN}"
    )


def _rebuilt_state(parts: RecordParts) -> Run:
    """Rebuilds an unfinished run from its request and the readable part of its log."""
    run, submission = _known_run(parts), parts.submission
    if not run.request.output_dir:
        return _failed(
            run, f"The record of the run was damaged on this machine. {_prompt_location(run)}{_EXECUTE_AGAIN}"
        )
    if submission is not None and submission.submissions > run.submissions:
        return _submitted(run, submission)
    if run.prompt_id is not None:
        return replace(run, lost=run.lost | {LostParts.STATE})
    if not run.graph and run.request.workflow.is_lost:
        return _failed(run, f"The record of the run was damaged on this machine. {_EXECUTE_AGAIN}")
    if parts.tells_submissions and SUBMISSION not in parts.troubles:
        return replace(run, lost=run.lost | {LostParts.PROGRESS})
    return _failed(
        replace(run, lost=run.lost | {LostParts.STATE}),
        "The record of the run was damaged on this machine, and its prompt may have been submitted. A retry "
        "looks for it at the instance and fetches what it made; it submits nothing",
    )


def _rebuilt_end(parts: RecordParts) -> Run:
    """Rebuilds a finished run from its summary and the readable part of its log."""
    known, summary = _known_run(parts), parts.summary
    run = replace(known, lost=known.lost | {LostParts.STATE})
    where = run.request.output_dir or "its output directory"
    if summary is None:
        return _failed(
            run,
            "The run had ended, and the record of how was damaged on this machine. Its files may be in "
            f"{where}; a retry asks the instance for its outputs",
        )
    placement = run.placement or _placement_of(summary, run.request)
    ended = replace(run, **_summary_fields(summary), placement=placement)  # type: ignore[arg-type]
    has_outputs = len(ended.outputs) == summary.output_count and not ended.has_missing_outputs
    if summary.status is not RunStatus.COMPLETED or has_outputs:
        return ended
    message = (
        "The run was completed, and the list of its outputs was damaged on this machine. Its files should be "
        f"in {where}; a retry asks the instance for them again, without running anything"
    )
    return replace(_failed(ended, message), end_time=summary.end_time, last_update=summary.last_update)


def _known_run(parts: RecordParts) -> Run:
    """The state from the readable part of the log, or else the run as it was ordered."""
    if parts.state is not None:
        return replace(parts.state, lost=parts.state.lost | _lost_workflow(parts.state.request))
    request, at = request_of(parts), _created_at(parts.run_id)
    graph = request.workflow.graph
    return Run(
        run_id=parts.run_id,
        request=request,
        queue_time=at,
        last_update=at,
        nodes=planned_nodes(graph, sink_ids(graph)) if graph else (),
        priority=request.priority,
        prepared_graph=parts.graph if parts.is_finished or parts.submission is not None else None,
        lost=_lost_workflow(request),
    )


def _submitted(run: Run, submission: SubmissionRecord) -> Run:
    return replace(
        run,
        status=RunStatus.QUEUED,
        phase=Phase.WAITING,
        prompt_id=submission.prompt_id,
        is_accepted=False,
        are_outputs_known=False,
        boot_marker=submission.boot_marker,
        submissions=submission.submissions,
        placement=submission.placement,
        chosen_port=submission.chosen_port,
        gpu_since=None,
        lost=run.lost | {LostParts.STATE},
    )


def _lost_workflow(request: RunRequest) -> frozenset[LostParts]:
    return frozenset({LostParts.WORKFLOW} if request.workflow.is_lost else ())


def _summary_fields(summary: RunSummary) -> dict[str, object]:
    """The fields of a run that its summary contains."""
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


def _placement_of(summary: RunSummary, request: RunRequest) -> Placement | None:
    """The last instance of the run, for a retry. None if only the ssh string is known."""
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


def _prompt_location(run: Run) -> str:
    if run.prompt_id is None:
        return ""
    return f"Its prompt {run.prompt_id} may be at {run.ssh_connection or 'its instance'}. "


def _created_at(run_id: str) -> datetime:
    try:
        return max(time_of_id(run_id), datetime(1970, 1, 2, tzinfo=UTC))
    except ValueError:
        return datetime(1970, 1, 2, tzinfo=UTC)
