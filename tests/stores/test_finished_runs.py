"""The columns of finished runs give back what was put in."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from comfyui_workflow.runs.model import Stay
from comfyui_workflow.stores.finished_runs import FinishedRuns
from comfyui_workflow.stores.sorted_ids import SortedIds
from comfyui_workflow.stores.summary_keys import SummaryKeys

AT = datetime(2026, 11, 30, 12, 0, 0, 123457, tzinfo=UTC)
PLAIN = SummaryKeys(run_id="a", workflow_name="night", ssh_connection="ssh root@gpu", status="completed")
FULL = SummaryKeys(
    run_id="b",
    workflow_name="",
    ssh_connection="ssh root@gpu",
    status="failed",
    instance_id="gpu-1",
    instance_name="left",
    batch_id="b1",
    graph_signature="s",
    prompt_s=0.0,
    price_per_hour=0.4,
    gpu_s=12.5,
    stays=(Stay(instance_id="gpu-2", gpu_s=1.5),),
    end_time=AT.astimezone(timezone(timedelta(hours=2))),
)
BEGUN = SummaryKeys(
    run_id="c", workflow_name="n", ssh_connection="s", status="cancelled", start_time=AT, end_time=AT
)


def test_what_was_put_in_is_given_back() -> None:
    ids = SortedIds("abc")
    finished = FinishedRuns(ids)
    for position, keys in enumerate((PLAIN, FULL, BEGUN)):
        finished.set(position, keys)
    assert [finished.get(position) for position in range(3)] == [PLAIN, FULL, BEGUN]
    assert [finished.batch_id(position) for position in range(3)] == [None, "b1", None]


def test_a_run_that_goes_on_is_not_finished_and_may_end_otherwise() -> None:
    finished = FinishedRuns(SortedIds("ab"))
    finished.set(0, PLAIN)
    finished.set(1, FULL)
    finished.remove(1)
    assert (finished.get(1), finished.batch_id(1)) == (None, None)
    ended = SummaryKeys(run_id="b", workflow_name="w", ssh_connection="s", status="completed")
    finished.set(1, ended)
    assert (finished.get(0), finished.get(1)) == (PLAIN, ended)
    finished.set(1, FULL)
    finished.set(1, ended)
    assert finished.get(1) == ended


def test_a_run_that_is_added_between_others_moves_them() -> None:
    ids = SortedIds("ac")
    finished = FinishedRuns(ids)
    finished.set(0, PLAIN)
    finished.set(1, BEGUN)
    position = ids.insert("b")
    assert position == 1
    finished.make_room(position)
    assert [finished.get(each) for each in range(3)] == [PLAIN, None, BEGUN]


@pytest.mark.parametrize("microsecond", [0, 1, 2, 499_999, 999_999])
def test_times_are_exact(microsecond: int) -> None:
    finished = FinishedRuns(SortedIds("c"))
    for year in (1971, 2026, 2100):
        at = datetime(year, 3, 1, microsecond=microsecond, tzinfo=UTC)
        finished.set(0, SummaryKeys(run_id="c", workflow_name="", ssh_connection="", status="", end_time=at))
        known = finished.get(0)
        assert known is not None
        assert known.end_time == at
