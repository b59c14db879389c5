"""Ids sort in the order in which runs and batches were accepted, even if the clock was set back."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from comfyui_workflow.runs.batch import BatchOrder
from comfyui_workflow.runs.model import is_run_id, later_than, new_run_id, time_of_id
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.stores.files.runs import FileRunStore
from comfyui_workflow.stores.journal import RunJournal
from tests.runs.test_state_machine import GRAPH
from tests.scheduling.making import request
from tests.services.test_batches import Idle, Made

AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


@pytest.mark.parametrize(
    "at", [AT, AT.replace(microsecond=999_999), datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)]
)
def test_the_next_id_is_greater_and_tells_its_time(at: datetime) -> None:
    first, second = new_run_id(at), new_run_id(later_than(at, at - timedelta(days=3)))
    assert first < second
    assert is_run_id(first)
    assert time_of_id(first) == at


@pytest.mark.parametrize("text", ["comfyui_workflow_999999999999_abc", "batch_x_1", "", "x"])
def test_what_tells_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        time_of_id(text)


@pytest.mark.parametrize("hours", [[0, 2, 0, -400, 1, 0], [-490_000, 0, -489_999]])
def test_the_latest_run_is_the_one_that_was_accepted_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: list[int]
) -> None:
    made = Made(tmp_path / "batches")
    ids, batch_ids = list[str](), list[str]()
    for ahead in hours:
        monkeypatch.setattr(
            "comfyui_workflow.services.runs.now", lambda ahead=ahead: AT + timedelta(hours=ahead)
        )
        monkeypatch.setattr(
            "comfyui_workflow.services.batches.now", lambda ahead=ahead: AT + timedelta(hours=ahead)
        )
        ids.append(made.service.submit(request(graph=GRAPH)).run_id)
        ids.append(made.service.submit(request(graph=GRAPH), f"{len(ids):016x}").run_id)
        batch = made.batches.submit(BatchOrder(requests=(request(graph=GRAPH),) * 3, name="b"))
        batch_ids.append(batch.batch_id)
        ids += [run.run_id for run in made.batches.runs(batch.batch_id)]
        latest = made.service.latest()
        assert latest is not None
        assert latest.run_id == ids[-1]
        made.begin_again()
    assert [each.batch.batch_id for each in made.batches.page(99, None)] == batch_ids[::-1]
    assert [summary.run_id for summary in made.store.summaries()] == ids[::-1]


def test_after_a_restart_a_clock_that_was_set_back_gives_no_smaller_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = []
    for ahead in (2, 0):
        monkeypatch.setattr(
            "comfyui_workflow.services.runs.now", lambda ahead=ahead: AT + timedelta(hours=ahead)
        )
        store = FileRunStore(tmp_path, None)
        store.open()
        journal = RunJournal(store)
        ids.append(RunService(journal, store, Idle(journal)).submit(request(graph=GRAPH)).run_id)
        latest = store.latest()
        assert latest is not None
        assert latest.run_id == ids[-1]
        store.close()
    assert ids == sorted(ids)
