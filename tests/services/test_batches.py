"""Tests of batches: atomic submission, order, cancellation and stop after a failure, also after a restart."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from comfyui_workflow.errors import BatchNotFound, RunConflict, StoreError
from comfyui_workflow.instances.model import placement_of
from comfyui_workflow.runs.batch import Batch, BatchOrder, OnError, expand_rows, progress_of
from comfyui_workflow.runs.events import (
    ExecutionEnded,
    ExecutionStarted,
    InstanceChosen,
    PromptPrepared,
    RunCancelled,
    RunCompleted,
    RunFailed,
)
from comfyui_workflow.runs.model import RunStatus
from comfyui_workflow.runs.summary import EVERY_RUN
from comfyui_workflow.scheduling.executor import QueueStatus
from comfyui_workflow.services.batches import BatchService
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.stores.damage import DamageReport
from comfyui_workflow.stores.files.batches import FileBatchStore
from comfyui_workflow.stores.journal import RunJournal, now
from comfyui_workflow.stores.memory import MemoryRunStore
from tests.runs.test_state_machine import GRAPH
from tests.scheduling.making import instance, request


class Idle:
    """Executor that only ends cancelled runs."""

    def __init__(self, journal: RunJournal) -> None:
        self.journal = journal
        self.started: list[str] = []

    def start(self, run_id: str) -> None:
        self.started.append(run_id)

    def recheck(self, run_id: str) -> None:
        if self.journal.get(run_id).is_cancel_requested:
            self.journal.record(run_id, RunCancelled())

    def cancel_waiting(self, run_ids: Sequence[str], reason: str | None) -> list[str]:
        return []

    def queue_status(self, run_id: str) -> QueueStatus | None:
        return None

    def stop(self, timeout_s: float) -> bool:
        return True


class Made:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = MemoryRunStore()
        self.journal = RunJournal(self.store)
        self.executor = Idle(self.journal)
        self.service = RunService(self.journal, self.store, self.executor)
        self.damage = DamageReport()
        self.batches = self.begin_again()

    def begin_again(self) -> BatchService:
        """Creates the service again from the files, like a server that has just started."""
        self.files = FileBatchStore(self.directory)
        self.files.open()
        self.batches = BatchService(self.journal, self.store, self.service, self.files, self.damage)
        return self.batches

    def submit(self, count: int, on_error: OnError = OnError.CONTINUE) -> tuple[str, list[str]]:
        asked = tuple(request(workflow_name=f"w{number}", graph=GRAPH) for number in range(count))
        batch = self.batches.submit(BatchOrder(requests=asked, name="night", on_error=on_error))
        return batch.batch_id, [run.run_id for run in self.batches.runs(batch.batch_id)]

    def statuses(self, batch_id: str) -> list[str]:
        return [run.status.value for run in self.batches.runs(batch_id)]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "batches")


def test_runs_are_in_the_order_they_were_ordered(made: Made) -> None:
    batch_id, ids = made.submit(50)
    assert made.executor.started == ids == sorted(ids)
    names = [run.workflow_name for run in made.batches.runs(batch_id)]
    assert names == [f"w{number}" for number in range(50)]
    assert made.batches.page(10, None)[0].batch.batch_id == batch_id


def test_its_runs_know_how_far_apart_they_start(made: Made) -> None:
    order = BatchOrder(requests=(request(graph=GRAPH),) * 2, name="night", stagger_s=60)
    batch = made.batches.submit(order)
    first, second = (made.journal.get(run.run_id) for run in made.batches.runs(batch.batch_id))
    assert (first.request.stagger_s, second.request.stagger_s) == (60, 60)
    assert (first.request.not_before, second.request.not_before) == (
        batch.created_at,
        batch.created_at + timedelta(seconds=60),
    )
    made.journal.record(first.run_id, PromptPrepared(prompt_id="p", boot_marker=None))
    begun = made.journal.record(first.run_id, ExecutionStarted())
    assert made.journal.last_start(batch.batch_id) == begun.start_time


def test_a_batch_that_cannot_be_saved_starts_nothing(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_batch: Batch) -> None:
        raise StoreError("no space left")

    monkeypatch.setattr(made.files, "add", full)
    with pytest.raises(StoreError):
        made.submit(3)
    assert made.executor.started == []
    assert {run.status for run in made.store.summaries()} == {RunStatus.CANCELLED}


def test_runs_without_their_batch_were_never_accepted(made: Made) -> None:
    """The state after a crash between saving the runs and saving the batch."""
    orphans = made.service.save_all([replace(request(graph=GRAPH), batch_id="batch_1_00") for _ in range(3)])
    _, accepted = made.submit(2)
    made.batches.resume()
    assert all(made.journal.get(run.run_id).status is RunStatus.CANCELLED for run in orphans)
    assert "no run of it was started" in str(made.journal.get(orphans[0].run_id).error_message)
    assert all(made.journal.get(each).status is RunStatus.QUEUED for each in accepted)


@pytest.mark.parametrize("dies_before", [False, True])
def test_an_error_stops_those_that_wait(
    made: Made, monkeypatch: pytest.MonkeyPatch, dies_before: bool
) -> None:
    batch_id, ids = made.submit(4, OnError.STOP)
    made.journal.record(ids[1], PromptPrepared(prompt_id="p", boot_marker=None))
    if dies_before:
        monkeypatch.setattr(made.journal, "_on_finish", [])
    made.journal.record(ids[0], RunFailed(code="prompt_failed", message="no"))
    if dies_before:
        assert made.statuses(batch_id) == ["failed", "queued", "queued", "queued"]
        made.batches.stop_failed()
    assert made.statuses(batch_id) == ["failed", "queued", "cancelled", "cancelled"]
    told = made.journal.get(ids[3]).error_message
    assert told == f"Not started: the run {ids[0]} of the same batch has failed"


def test_an_error_changes_nothing_otherwise(made: Made) -> None:
    batch_id, ids = made.submit(2)
    made.journal.record(ids[0], RunFailed(code="prompt_failed", message="no"))
    assert made.statuses(batch_id) == ["failed", "queued"]
    assert not made.batches.progress(batch_id).can_retry
    with pytest.raises(RunConflict):  # the workflow itself caused the failure
        made.batches.retry(batch_id)


def test_cancel_and_retry_of_a_batch(made: Made) -> None:
    batch_id, ids = made.submit(3)
    made.journal.record(ids[0], RunCompleted())
    made.journal.record(ids[1], RunFailed(code="connection_failed", message="cut"))
    assert made.batches.progress(batch_id).can_retry
    assert made.batches.retry(batch_id) == 1
    assert made.batches.cancel(batch_id) == 2
    assert made.statuses(batch_id) == ["completed", "cancelled", "cancelled"]
    for act in (made.batches.cancel, made.batches.retry):
        with pytest.raises(RunConflict):
            act(batch_id)


def test_a_batch_is_cancelled_though_the_server_dies_before_its_runs_have_ended(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id, ids = made.submit(5)
    made.journal.record(ids[0], RunFailed(code="connection_failed", message="cut"))
    made.journal.record(ids[1], PromptPrepared(prompt_id="p", boot_marker=None))
    monkeypatch.setattr(made.executor, "cancel_waiting", lambda ids, reason: list(ids))
    assert made.batches.cancel(batch_id) == 4
    assert made.statuses(batch_id) == ["failed"] + ["queued"] * 4
    made.service.retry(ids[0])
    made.begin_again().resume()
    assert made.statuses(batch_id) == ["queued", "queued", "cancelled", "cancelled", "cancelled"]
    asked = [made.journal.get(each).is_cancel_requested for each in ids[:2]]
    assert asked == [False, True]  # this run waits for the instance


@pytest.mark.parametrize("batch_id", ["", "batch_1_aa", "../x", "batch_1_aa/../x", "batch_1_" + "a" * 99])
def test_a_batch_that_is_not_there(made: Made, batch_id: str) -> None:
    for act in (made.batches.progress, made.batches.runs, made.batches.cancel, made.batches.retry):
        with pytest.raises(BatchNotFound):
            act(batch_id)


def test_a_spoiled_record_of_a_batch_hides_no_other(made: Made, tmp_path: Path) -> None:
    batch_id, _ = made.submit(1)
    (tmp_path / "batches" / "batch_9999999999_aa.json").write_text("{")
    again = made.begin_again()
    again.resume()
    assert [each.batch.batch_id for each in again.page(10, None)] == [batch_id]


@pytest.mark.parametrize("damage", [b"", b"{", b"\0" * 300, b'{"batch_id":"batch_1_aa"}'])
def test_a_batch_whose_record_is_damaged_is_made_anew_of_its_runs(made: Made, damage: bytes) -> None:
    batch_id, ids = made.submit(3, OnError.STOP)
    made.journal.record(ids[0], PromptPrepared(prompt_id="p", boot_marker=None))
    made.journal.record(ids[0], ExecutionStarted())
    before = made.files.get(batch_id)
    path = made.directory / f"{batch_id}.json"
    path.write_bytes(damage)
    made.begin_again().resume()
    assert made.files.get(batch_id) == replace(before, created_at=before.created_at)
    assert made.statuses(batch_id) == ["executing", "queued", "queued"]
    assert [(each.path, "rebuilt from" in each.outcome) for each in made.damage.all()] == [(str(path), True)]
    assert [kept.read_bytes() for kept in (made.directory / "set-aside").iterdir()] == [damage]
    made.begin_again().resume()
    assert made.files.get(batch_id) == before
    assert len(made.damage.all()) == 1


def test_a_damaged_batch_of_an_earlier_release_is_what_its_runs_are(made: Made) -> None:
    """The runs of an earlier release do not contain the name of the batch."""
    asked = [replace(request(graph=GRAPH), batch_id="batch_1_aa", stagger_s=5.0) for _ in range(2)]
    runs = made.service.save_all(asked)
    (made.directory / "batch_1_aa.json").write_bytes(b"\xff")
    made.begin_again().resume()
    batch = made.files.get("batch_1_aa")
    assert (batch.total, batch.stagger_s, batch.name) == (2, 5.0, runs[0].request.workflow_name)
    assert made.statuses("batch_1_aa") == ["queued", "queued"]


@pytest.mark.parametrize(
    ("endings", "status"),
    [
        ((None, None), "queued"),
        ((RunCompleted(), None), "executing"),
        ((RunCompleted(), RunCompleted()), "completed"),
        ((RunCompleted(), RunCancelled()), "cancelled"),
        ((RunFailed(code="x", message="y"), RunCancelled()), "failed"),
    ],
)
def test_the_status_of_a_batch_is_the_worst_of_its_runs(
    made: Made, endings: tuple[object, ...], status: str
) -> None:
    batch_id, ids = made.submit(2)
    for run_id, ending in zip(ids, endings, strict=True):
        if ending is not None:
            made.journal.record(run_id, ending)  # type: ignore[arg-type]
    progress = made.batches.progress(batch_id)
    assert progress.status == status
    assert (progress.end_time is None) == (None in endings)


def test_a_batch_without_runs_on_record_is_not_completed() -> None:
    batch = Batch(batch_id="batch_1_aa", name="x", created_at=now(), total=2)
    assert progress_of(batch, [], now()).percent == 0.0


def test_how_many_runs_the_cost_lacks_is_told(made: Made) -> None:
    batch_id, ids = made.submit(4)
    for number, run_id in enumerate(ids[:3]):
        price = {"price_per_hour": None if number else 3600.0}
        placement = placement_of(request(), instance("a", **price), "")
        made.journal.record(run_id, InstanceChosen(placement=placement))
        made.journal.record(run_id, ExecutionEnded(execution_s=2.0))
    progress = made.batches.progress(batch_id)
    assert (progress.gpu_s, progress.cost, progress.unpriced) == (6.0, 2.0, 2)


def test_rows_of_a_matrix() -> None:
    assert expand_rows({"a": [1, 2], "b": ["x", "y"]}, None, 4) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    assert expand_rows({"a": []}, None, 4) == expand_rows({}, None, 4) == expand_rows(None, [], 4) == []


def test_the_pictures_of_a_batch_are_of_its_newest_runs(made: Made) -> None:
    batch_id, ids = made.submit(6)

    def pictures(*counts: int) -> list[tuple[str, int]]:
        runs = [
            replace(run, pictures=tuple(range(count)))
            for run, count in zip(made.batches.runs(batch_id), counts, strict=True)
        ]
        return list(progress_of(made.files.get(batch_id), runs, now()).pictures)

    assert pictures(0, 0, 0, 0, 0, 0) == []
    assert pictures(3, 0, 0, 2, 0, 0) == [(ids[3], 0), (ids[0], 0), (ids[3], 1), (ids[0], 1)]
    assert pictures(1, 1, 1, 1, 1, 1) == [(each, 0) for each in ids[:1:-1]]


def test_a_batch_whose_record_is_gone_is_what_its_runs_are(made: Made) -> None:
    made.submit(3)
    head = made.service.summaries(1, None, EVERY_RUN)[0]
    assert made.batches.progress_of_run(replace(head, batch_id=None)) is None
    known = made.batches.progress_of_run(head)
    assert known is not None
    assert (known.batch.name, known.batch.total) == ("night", 3)
    orphan = made.batches.progress_of_run(replace(head, batch_id="batch_1_00"))
    assert orphan is not None
    assert (orphan.batch.name, orphan.batch.total) == (head.workflow_name, 0)
