"""Run summaries and their filters."""

from dataclasses import replace

import pytest

from comfyui_workflow.runs.model import Placement, RunStatus
from comfyui_workflow.runs.summary import LONGEST_MESSAGE, RunFilter, summary_of
from comfyui_workflow.runs.target import AnyInstance, target_of_record
from tests.runs.test_state_machine import new_run

PLACEMENT = Placement(
    instance_id="i-1",
    name="Primary",
    ssh_connection="ssh root@192.0.2.1",
    comfyui_port=1,
    comfyui_input_dir="/i",
    comfyui_output_dir="/o",
    price_per_hour=0.36,
    reason="the only one",
)
RUN = replace(
    new_run(), request=replace(new_run().request, target=AnyInstance(), workflow_name="Große Karte")
)
PLACED = summary_of(replace(RUN, placement=PLACEMENT, gpu_s=10.0))
ASKED = summary_of(replace(RUN, request=replace(RUN.request, target=target_of_record("primary"))))


def test_an_instance_tells_what_it_costs() -> None:
    assert (PLACED.instance_id, PLACED.instance_name, PLACED.ssh_connection) == ("i-1", "Primary", "any")
    assert PLACED.cost(PLACED.last_update) == pytest.approx(0.001)
    assert ASKED.cost(ASKED.last_update) is None


def test_a_long_message_is_cut() -> None:
    message = summary_of(replace(RUN, error_message="x" * 5000)).error_message
    assert message is not None
    assert (len(message), message[-2:]) == (LONGEST_MESSAGE, "x…")
    assert (
        summary_of(replace(RUN, error_message="x" * LONGEST_MESSAGE)).error_message == "x" * LONGEST_MESSAGE
    )


@pytest.mark.parametrize(
    ("wanted", "placed", "asked"),
    [
        (RunFilter(), True, True),
        (RunFilter(statuses=frozenset({RunStatus.QUEUED, RunStatus.FAILED})), True, True),
        (RunFilter(statuses=frozenset({RunStatus.FAILED})), False, False),
        (RunFilter(name_contains="GROSSE"), True, True),
        (RunFilter(name_contains="große k"), True, True),
        (RunFilter(name_contains="x"), False, False),
        (RunFilter(instance="i-1"), True, False),
        (RunFilter(instance="PRIMARY"), True, True),
        (RunFilter(instance="any"), False, False),
        (RunFilter(batch_id="b"), False, False),
        (RunFilter(batch_id="b", instance="i-1"), False, False),
    ],
)
def test_runs_are_wanted_by_all_that_is_asked(wanted: RunFilter, placed: bool, asked: bool) -> None:
    assert (wanted.matches(PLACED), wanted.matches(ASKED)) == (placed, asked)
