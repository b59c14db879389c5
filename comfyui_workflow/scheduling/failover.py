"""Decides when a run for `any` leaves the instance that it was assigned to."""

from comfyui_workflow.errors import (
    ComfyUIError,
    InstanceBroken,
    InstanceError,
    InvalidGraph,
    PromptCrashed,
    PromptRefused,
    RemoteFileError,
    WorkflowError,
)
from comfyui_workflow.runs.model import Run, RunStatus

FINISHED_FACTOR = 10
"""A run waits this many times longer for an instance that has its outputs."""


def is_refusal(error: Exception) -> bool:
    """True if the instance works but cannot run this workflow. Another instance may have what is missing."""
    return isinstance(error, InvalidGraph | PromptRefused | RemoteFileError)


def is_instance_trouble(error: Exception) -> bool:
    """True if the instance does not work now, for any run."""
    return isinstance(error, InstanceError | ComfyUIError) and not is_refusal(error)


def should_leave(
    run: Run, error: Exception, failing_for_s: float, *, move_after_s: float, is_another_ready: bool
) -> bool:
    """Before its prompt is submitted, a run leaves at the first error of the instance. A submitted prompt may
    still produce its picture. So it is given up only if another instance is ready, and much later if the
    picture is finished and only the download is missing."""
    if is_refusal(error):
        return not run.is_accepted
    if not is_instance_trouble(error):
        return False
    if run.prompt_id is None:
        return True
    patience_s = FINISHED_FACTOR * move_after_s if run.are_outputs_known else move_after_s
    is_transient = isinstance(error, WorkflowError) and error.is_transient
    is_late = is_transient and failing_for_s >= patience_s
    is_lasting = isinstance(error, InstanceBroken | PromptCrashed) and not is_transient
    return is_another_ready and (is_late or is_lasting)


def may_run_again(run: Run, most_times: int) -> bool:
    """False if the prompt was executing too often when its instance failed, since the prompt may have caused
    the failure; and if it may have run and costs credits."""
    if run.partner_nodes and run.prompt_id is not None:
        return False
    return run.status is not RunStatus.EXECUTING or run.times_lost_running < most_times
