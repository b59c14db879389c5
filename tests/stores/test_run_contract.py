"""Contract of a store of runs, for every implementation."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from comfyui_workflow.errors import RunNotFound
from comfyui_workflow.runs.events import (
    CancelRequested,
    Durability,
    ExecutionEnded,
    ExecutionStarted,
    NoticeAdded,
    PartsGathered,
    PromptPrepared,
    RetryRequested,
    RunCompleted,
    RunFailed,
)
from comfyui_workflow.runs.model import OutputFile, Run, RunStatus, Stay, new_run_id
from comfyui_workflow.runs.parts import PartOrder, PartState
from comfyui_workflow.runs.state_machine import apply
from comfyui_workflow.runs.summary import EVERY_RUN, RunFilter, summary_of
from comfyui_workflow.runs.target import InstanceId
from comfyui_workflow.stores.base import RunStore, Wanted
from comfyui_workflow.stores.files.runs import FileRunStore
from comfyui_workflow.stores.journal import RunJournal
from comfyui_workflow.stores.memory import MemoryRunStore
from tests.runs.test_state_machine import AT, new_run


def opened(tmp_path: Path) -> FileRunStore:
    store = FileRunStore(tmp_path / "data", tmp_path / "state.json")
    store.open()
    return store


@pytest.fixture(params=["memory", "json file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunStore]:
    made: RunStore = MemoryRunStore() if request.param == "memory" else opened(tmp_path)
    yield made
    made.close()


def run_number(n: int) -> Run:
    return replace(new_run(), run_id=f"comfyui_workflow_17000000{n:02}_abc", queue_time=AT)


def test_a_run_is_kept_as_it_was_given(store: RunStore) -> None:
    run = run_number(1)
    store.add(run)
    assert store.get(run.run_id) == run
    assert store.get("comfyui_workflow_1_ff") is None
    assert store.get("../../etc/passwd") is None


def test_pages_are_newest_first_and_join_without_gap(store: RunStore) -> None:
    assert (store.latest(), store.page(5), store.count()) == (None, [], 0)
    for n in (3, 1, 5, 2, 4):
        store.add(run_number(n))
        if n in (1, 5, 4):
            store.update(run_number(n).run_id, lambda run: apply(run, RunCompleted(), AT), Durability.MUST)
    latest = store.latest()
    assert latest is not None
    assert latest.run_id == run_number(5).run_id
    first = store.page(2)
    rest = store.page(9, before=first[-1].run_id)
    assert [run.run_id for run in first + rest] == [run_number(n).run_id for n in (5, 4, 3, 2, 1)]
    assert [run.run_id for run in store.unfinished()] == [run_number(n).run_id for n in (2, 3)]
    assert store.count() == 5


def test_summaries_are_those_of_the_runs_as_they_are_now(store: RunStore) -> None:
    journal = RunJournal(store)
    for n in (2, 1, 3):
        store.add(run_number(n))
    journal.record(run_number(2).run_id, RunFailed(code="outputs_missing", message="x" * 1000))
    check_summaries(store, 3)
    assert [summary.run_id for summary in store.summaries(2)] == [run_number(n).run_id for n in (3, 2)]
    before = store.summaries(9, before=run_number(3).run_id)
    assert [summary.status for summary in before] == [RunStatus.FAILED, RunStatus.QUEUED]
    journal.record(run_number(2).run_id, RetryRequested())
    journal.record(run_number(1).run_id, CancelRequested())
    check_summaries(store, 3)
    journal.record(run_number(2).run_id, RunCompleted())
    check_summaries(store, 3)


def check_summaries(store: RunStore, count: int) -> None:
    summaries = store.summaries()
    assert summaries == [summary_of(run) for run in store.page(count + 1)]
    assert len(summaries) == store.count() == count


def test_wanted_runs_are_listed_and_counted(store: RunStore) -> None:
    for n in range(6):
        store.add(in_batch(run_number(n), "b" if n % 2 else None))
    for n in (0, 1, 2):
        store.update(run_number(n).run_id, lambda run: apply(run, RunCompleted(), AT), Durability.MUST)
    ended = RunFilter(statuses=frozenset({RunStatus.COMPLETED}))
    cases: list[tuple[Wanted, list[int]]] = [
        (EVERY_RUN, [5, 4, 3, 2, 1, 0]),
        (ended, [2, 1, 0]),
        (RunFilter(batch_id="b"), [5, 3, 1]),
        (RunFilter(batch_id="b", statuses=ended.statuses), [1]),
        (RunFilter(batch_id="another"), []),
        (lambda summary: summary.batch_id is None and not summary.is_finished, [4]),
    ]
    for wanted, numbers in cases:
        ids = [run_number(n).run_id for n in numbers]
        assert [summary.run_id for summary in store.summaries(wanted=wanted)] == ids
        assert [summary.run_id for summary in store.summaries(2, ids[0] if ids else None, wanted)] == ids[1:3]
        assert store.count(wanted) == len(ids)
    assert [summary.run_id for summary in store.of_batch("b")] == [run_number(n).run_id for n in (1, 3, 5)]
    assert store.of_batch("another") == []


def grouped_pages(store: RunStore, limit: int, wanted: Wanted) -> list[list[str]]:
    """Returns all pages of grouped runs; each run is the last characters of its id."""
    pages, before = list[list[str]](), None
    while found := store.grouped(limit, before, wanted):
        pages.append([summary.run_id[-6:-4] for summary in found])
        before = found[-1].run_id
    return pages


def test_runs_of_a_batch_are_one_where_its_newest_is_that_is_wanted(store: RunStore) -> None:
    for n, batch_id in enumerate(["a", "b", None, "a", "b", None, "a", None]):
        store.add(in_batch(run_number(n), batch_id))
    for n in (3, 4, 5):
        store.update(run_number(n).run_id, lambda run: apply(run, RunCompleted(), AT), Durability.MUST)
    ended = RunFilter(statuses=frozenset({RunStatus.COMPLETED}))
    cases: list[tuple[Wanted, list[str]]] = [
        (EVERY_RUN, ["07", "06", "05", "04", "02"]),
        (ended, ["05", "04", "03"]),
        (RunFilter(batch_id="a"), ["06"]),
        (RunFilter(batch_id="a", statuses=ended.statuses), ["03"]),
        (RunFilter(batch_id="another"), []),
        (lambda summary: summary.run_id < run_number(5).run_id, ["04", "03", "02"]),
    ]
    for wanted, numbers in cases:
        assert grouped_pages(store, 9, wanted) == ([numbers] if numbers else [])
        for limit in (1, 2, 3):
            pages = grouped_pages(store, limit, wanted)
            assert [number for page in pages for number in page] == numbers
            assert all(len(page) == limit for page in pages[:-1])
    assert len(store.grouped()) == 5


def in_batch(run: Run, batch_id: str | None) -> Run:
    return replace(run, request=replace(run.request, batch_id=batch_id))


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_many_runs_are_added_at_once(store: RunStore, count: int) -> None:
    store.add(run_number(50))
    runs = [run_number(n) for n in reversed(range(count))]
    store.add_all(runs)
    assert store.unfinished() == [*reversed(runs), run_number(50)]
    check_summaries(store, count + 1)
    latest = store.latest()
    assert latest is not None
    assert latest.run_id == run_number(50).run_id


def test_bills_are_those_of_the_summaries(store: RunStore) -> None:
    journal, later = RunJournal(store), AT + timedelta(days=1)
    ends = [RunCompleted(), RunFailed(code="connection_failed", message="m"), None]
    for n, end in enumerate(ends):
        store.add(run_number(n))
        journal.record(run_number(n).run_id, PromptPrepared(prompt_id="p", boot_marker=None))
        journal.record(run_number(n).run_id, ExecutionStarted())
        if end is not None:
            journal.record(run_number(n).run_id, ExecutionEnded(execution_s=n * 5.0))
            journal.record(run_number(n).run_id, end)
    moved = replace(run_number(3), stays=(Stay(instance_id="a", gpu_s=3.0, price_per_hour=2.0),), gpu_s=7.0)
    store.add(replace(moved, request=replace(moved.request, target=InstanceId(text="b", instance_id="b"))))
    journal.record(moved.run_id, RunCompleted())
    expected = {each.run_id: (each.end_time, each.all_stays(later)) for each in store.summaries()}
    assert {each.run_id: (each.end_time, each.all_stays(later)) for each in store.billable_runs()} == expected
    assert [stay.gpu_s for stay in expected[moved.run_id][1]] == [3.0, 4.0]


def test_inputs_and_outputs_are_those_of_the_run(store: RunStore) -> None:
    outputs = (OutputFile(filename="a.png", local_path="/o/a.png"), OutputFile(filename="b", text="x"))
    runs = [replace(run_number(n), outputs=outputs[:n]) for n in range(3)]
    runs = [replace(run, request=replace(run.request, inputs={"1.seed": [1, {"a": None}]})) for run in runs]
    store.add(runs[0])
    store.add_all(runs[1:])
    store.update(runs[2].run_id, lambda run: apply(run, RunCompleted(), AT), Durability.MUST)
    for run in runs:
        assert store.inputs(run.run_id) == run.request.inputs
        assert store.outputs(run.run_id) == run.outputs
    for unknown in ("comfyui_workflow_1_ff", "../../etc/passwd"):
        assert (store.inputs(unknown), store.outputs(unknown)) == (None, None)


def keyed_run(second: int, key: str) -> Run:
    return replace(new_run(), run_id=new_run_id(AT + timedelta(seconds=second), key))


def test_a_run_is_found_by_its_idempotency_key(store: RunStore) -> None:
    keys = [f"{n:016x}" for n in range(3)]
    runs = [keyed_run(n, key) for n, key in enumerate(keys)]
    store.add_all([runs[2], run_number(4)])
    store.add(runs[0])
    store.update(runs[2].run_id, lambda run: apply(run, RunCompleted(), AT), Durability.MUST)
    assert [store.by_idempotency_key(key) for key in keys] == [runs[0].run_id, None, runs[2].run_id]
    assert store.by_idempotency_key(run_number(4).run_id[-8:]) is None
    again, older = keyed_run(9, keys[0]), keyed_run(-9, keys[0])
    store.add_all([again, older])
    assert store.by_idempotency_key(keys[0]) == again.run_id  # the newest of them


def test_updating_what_is_not_there_says_so(store: RunStore) -> None:
    with pytest.raises(RunNotFound):
        store.update("comfyui_workflow_1_ff", lambda run: run)


def test_updates_of_one_run_from_many_threads_are_all_kept(store: RunStore) -> None:
    run = run_number(1)
    store.add(run)

    def give_notices(thread: int) -> None:
        for n in range(16):
            event = NoticeAdded(message=f"{thread}.{n}")
            store.update(run.run_id, lambda run, event=event: apply(run, event, AT))

    threads = [threading.Thread(target=give_notices, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = store.get(run.run_id)
    assert kept is not None
    assert len(kept.notices) == 96


def test_a_finished_run_can_be_taken_up_again(store: RunStore) -> None:
    run = run_number(1)
    store.add(run)
    journal = RunJournal(store)
    journal.record(run.run_id, RunFailed(code="outputs_missing", message="x"))
    assert store.unfinished() == []
    journal.record(run.run_id, RetryRequested())
    assert [r.status for r in store.unfinished()] == [RunStatus.QUEUED]
    journal.record(run.run_id, RunCompleted())
    assert journal.get(run.run_id).status is RunStatus.COMPLETED


def test_parts_are_hidden_from_lists_unless_they_are_asked_for(store: RunStore) -> None:
    parent, child, other = run_number(1), part_of(run_number(2), run_number(1)), run_number(3)
    late = part_of(run_number(4), run_number(1))
    store.add_all([parent, child, other])
    store.add(late)
    for _ in range(2):  # while they are unfinished, and afterwards
        assert shown(store, RunFilter()) == [other.run_id, parent.run_id]
        assert shown(store, EVERY_RUN) == [late.run_id, other.run_id, child.run_id, parent.run_id]
        assert (store.count(RunFilter()), store.count()) == (2, 4)
        assert shown(store, RunFilter(name_contains="test")) == [other.run_id, parent.run_id]
        assert [run.run_id for run in store.grouped(None, None, RunFilter())] == [other.run_id, parent.run_id]
        latest = store.latest()
        assert latest is not None
        assert latest.run_id == other.run_id
        assert store.latest_id() == late.run_id
        for run in (parent, child, other, late):
            store.update(run.run_id, lambda run: apply(run, RunCompleted(), AT), Durability.MUST)
    reopened = store.update(
        child.run_id, lambda run: replace(run, status=RunStatus.QUEUED, end_time=None), Durability.MUST
    )
    assert not reopened.is_finished
    assert shown(store, RunFilter()) == [other.run_id, parent.run_id]


def part_of(run: Run, parent: Run) -> Run:
    order = PartOrder(parent_id=parent.run_id, number=0)
    return replace(run, request=replace(run.request, part=order))


def shown(store: RunStore, wanted: Wanted) -> list[str]:
    return [summary.run_id for summary in store.summaries(wanted=wanted)]


def test_parts_stay_hidden_after_a_restart(tmp_path: Path) -> None:
    store = opened(tmp_path)
    parent, child = run_number(1), part_of(run_number(2), run_number(1))
    store.add_all([parent, child])
    store.update(child.run_id, lambda run: apply(run, RunCompleted(), AT), Durability.MUST)
    store.close()
    again = opened(tmp_path)
    assert shown(again, RunFilter()) == [parent.run_id]
    assert again.get(child.run_id) is not None
    request = (tmp_path / "data" / "runs" / "finished" / child.run_id / "request.json").read_bytes()
    assert request.startswith(b'{"version":2,')
    again.close()


def test_a_gathered_graph_is_kept_before_it_is_submitted(tmp_path: Path) -> None:
    store = opened(tmp_path)
    run = replace(run_number(1), parts=(PartState(run_id="p", number=0),))
    store.add(run)
    graph = {"1": {"class_type": "SaveImage", "inputs": {}}}
    gathered = PartsGathered(graph=graph, files=("/f.png",))
    store.update(run.run_id, lambda run: apply(run, gathered, AT), Durability.SYNCED)
    store.close()
    again = opened(tmp_path)
    read = again.get(run.run_id)
    assert read is not None
    assert (read.prepared_graph, read.input_files) == (graph, ("/f.png",))
    again.close()
