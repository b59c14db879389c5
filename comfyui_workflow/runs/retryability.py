"""Tells whether a retry of a run is accepted. A retry connects to the instance again and fetches missing
outputs. It executes nothing a second time, except nodes whose files in ComfyUI's cache are gone, and a prompt
that was lost and is submitted again only on request (NOT_RESUBMITTED)."""

from typing import Protocol

from comfyui_workflow.runs.job import IMAGE_NOT_FETCHED, INVALID_ORDER
from comfyui_workflow.runs.model import DAMAGED, LostParts, RunStatus

_WORKFLOW_FAILED = "A retry cannot help, because the workflow itself failed. Execute it again"
_REFUSED = {
    **dict.fromkeys(("prompt_failed", "prompt_refused", "prompt_lost"), _WORKFLOW_FAILED),
    "invalid_inputs": "A retry cannot help, because a value in the workflow is wrong. "
    "Correct it, and execute it again",
    "outputs_lost": "A retry cannot fetch what is missing. Execute it again",
    "api_key_gone": "The API key of Comfy.org that came with the run is no longer stored. "
    "Execute it again, with the key",
    IMAGE_NOT_FETCHED: "Its images could not be downloaded from the web. Retry its job, "
    "which downloads them again (POST /retry/<job_id>)",
    INVALID_ORDER: "A retry cannot help, because the order of its job is invalid. Send a corrected one",
}
"""Refusals by error code, for failures that a retry would only repeat, or that need the GPU again."""


class Retryable(Protocol):
    """A run or its summary."""

    @property
    def status(self) -> RunStatus: ...

    @property
    def error_code(self) -> str | None: ...

    @property
    def lost(self) -> frozenset[LostParts]: ...


def retry_refusal(run: Retryable) -> str | None:
    """The sentence that refuses a retry; None if the retry is accepted."""
    if run.status is not RunStatus.FAILED:
        return f"Only a failed run can be retried, and this one is {run.status.value}"
    if run.error_code == DAMAGED and LostParts.STATE not in run.lost:
        return "The workflow is lost, because the record of the run was damaged. Execute it again"
    return _REFUSED.get(run.error_code or "")
