"""Acceptance of a retry: one answer for the service, the document and the list."""

from dataclasses import replace

import pytest

from comfyui_workflow.runs.codec import decode_summary, encode_summary
from comfyui_workflow.runs.document import progress_document, summary_document
from comfyui_workflow.runs.model import LostParts, Run, RunStatus
from comfyui_workflow.runs.retryability import retry_refusal
from comfyui_workflow.runs.summary import summary_of
from tests.runs.test_state_machine import new_run


def failed(code: str | None, *lost: LostParts) -> Run:
    return replace(new_run(), status=RunStatus.FAILED, error_code=code, lost=frozenset(lost))


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (failed("connection_failed"), None),
        (failed("invalid_workflow"), None),
        (failed("outputs_missing"), None),
        (failed("outputs_lost"), "A retry cannot fetch what is missing"),
        (failed("invalid_inputs"), "a value in the workflow is wrong"),
        (failed(None), None),
        (failed("record_damaged", LostParts.STATE), None),
        (failed("record_damaged", LostParts.WORKFLOW), "record of the run was damaged. Execute it again"),
        (failed("prompt_failed"), "Execute it again"),
        (failed("prompt_refused"), "Execute it again"),
        (failed("prompt_lost"), "Execute it again"),
        (failed("api_key_gone"), "Execute it again, with the key"),
        (failed("image_not_fetched"), "Retry its job"),
        (new_run(), "this one is queued"),
        (replace(new_run(), status=RunStatus.COMPLETED), "this one is completed"),
        (replace(new_run(), status=RunStatus.CANCELLED), "this one is cancelled"),
    ],
)
def test_a_retry_is_refused_with_a_sentence_where_it_could_only_repeat(
    run: Run, sentence: str | None
) -> None:
    refusal = retry_refusal(run)
    assert (sentence is None) == (refusal is None)
    assert sentence is None or sentence in str(refusal)
    kept = decode_summary(encode_summary(summary_of(run)))
    for document in (progress_document(run), summary_document(kept)):
        assert (document["can_retry"], document["retry_refused"]) == (refusal is None, refusal)
