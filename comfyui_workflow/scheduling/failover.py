"""When a run for `any` leaves the instance it was given to."""

from comfyui_workflow.errors import (
    ComfyUIError,
    InstanceBroken,
    InstanceError,
    InvalidGraph,
    PromptRefused,
    RemoteFileError,
    WorkflowError,
)
from comfyui_workflow.runs.model import Run, RunStatus

FINISHED_FACTOR = 10
"""So many times as long a run waits for an instance that has its outputs."""


def is_refusal(error: Exception) -> bool:
    """The instance is well, and cannot run this workflow: another one may have what is missing."""
    return isinstance(error, InvalidGraph | PromptRefused | RemoteFileError)


def is_instance_trouble(error: Exception) -> bool:
    """No run would fare better there now."""
    return isinstance(error, InstanceError | ComfyUIError) and not is_refusal(error)


def should_leave(
    run: Run, error: Exception, failing_for_s: float, *, move_after_s: float, is_another_ready: bool
) -> bool:
    """Before its prompt was submitted a run leaves at the first trouble. A prompt that was submitted may yet
    bring its picture: it is given up only for an instance that is there, and much later when the picture is
    finished and only has to be fetched."""
    if is_refusal(error):
        return not run.is_accepted
    if not is_instance_trouble(error):
        return False
    if run.prompt_id is None:
        return True
    patience_s = FINISHED_FACTOR * move_after_s if run.are_outputs_known else move_after_s
    is_late = isinstance(error, WorkflowError) and error.is_transient and failing_for_s >= patience_s
    return is_another_ready and (is_late or isinstance(error, InstanceBroken))


def may_run_again(run: Run, most_times: int) -> bool:
    """A prompt that was running when its instance died may have been its death."""
    return run.status is not RunStatus.EXECUTING or run.times_lost_running < most_times
