"""A run without its API key is not submitted if its nodes need the key, and the error says why."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ApiKeyGone
from comfyui_workflow.execution.submit import RunSubmission, SubmissionContext
from tests.stores.test_api_keys import KEY, new_run


def submitter(
    definition: dict[str, Any], key: str | None, *, submitted: list[dict[str, Any]]
) -> RunSubmission:
    """A submission to an instance that has one node class and records the submitted data."""

    def submit(graph: object, *, extra_data: dict[str, Any], **_: object) -> SimpleNamespace:
        submitted.append(extra_data)
        return SimpleNamespace(node_errors={}, prompt_id="p")

    session: Any = SimpleNamespace(
        definitions=lambda: SimpleNamespace(object_info={"A": definition}),
        boot_marker=lambda: None,
        feed=SimpleNamespace(wait_connected=lambda _: True, client_id="c"),
        client=SimpleNamespace(submit=submit),
    )
    live: Any = None
    return RunSubmission(
        session=session,
        record=lambda event: new_run(),
        stop=CancelToken(),
        slot=nullcontext,
        live=live,
        sender=SubmissionContext(),
        is_cancelled=lambda: False,
        run=new_run(),
        prompt_id="p",
        api_key=lambda: key,
    )


NEEDS = {"input": {"hidden": {"api_key": "API_KEY_COMFY_ORG"}}}


def test_a_node_that_needs_the_key_is_named() -> None:
    submitted: list[dict[str, Any]] = []
    with pytest.raises(ApiKeyGone, match="node 1 needs it") as failure:
        submitter(NEEDS, None, submitted=submitted).ensure_submitted()
    assert not failure.value.is_transient
    assert submitted == []


@pytest.mark.parametrize(("definition", "key"), [({}, None), (NEEDS, KEY), ({}, KEY)])
def test_otherwise_it_is_submitted(definition: dict[str, Any], key: str | None) -> None:
    submitted: list[dict[str, Any]] = []
    submitter(definition, key, submitted=submitted).ensure_submitted()
    assert [data.get("api_key_comfy_org") for data in submitted] == [key]
