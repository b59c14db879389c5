"""Tells whether a retry of a run is accepted. A retry connects to the instance again and fetches missing
outputs. It never executes a prompt a second time."""

from typing import Protocol

from comfyui_workflow.runs.job import IMAGE_NOT_FETCHED
from comfyui_workflow.runs.model import DAMAGED, LostParts, RunStatus

_AT_FAULT = "The workflow itself was at fault, so there is nothing to take up again: execute it anew"
_REFUSED = {
    **dict.fromkeys(("prompt_failed", "prompt_refused", "prompt_lost"), _AT_FAULT),
    "api_key_gone": "The API key of Comfy.org that came with it is not kept: order it anew, with the key",
    IMAGE_NOT_FETCHED: "Its images come from the web and did not arrive: retry its job, "
    "which fetches them again (POST /retry/<job_id>)",
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
        return "Its workflow is lost with its damaged record: execute it anew"
    return _REFUSED.get(run.error_code or "")
