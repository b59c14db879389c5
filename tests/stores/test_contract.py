"""What every store promises, and what the JSON files promise besides."""

import json
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from comfyui_workflow.errors import ConfigurationError, InvalidAddress, RunNotFound, StoreError
from comfyui_workflow.runs.codec import encode_run
from comfyui_workflow.runs.document import progress_document
from comfyui_workflow.runs.events import (
    CancelRequested,
    ExecutionStarted,
    NodesAdvanced,
    NodeStarted,
    NodeStep,
    NoticeGiven,
    OutputsFetched,
    PriorityChanged,
    PromptPrepared,
    PromptSucceeded,
    RetryRequested,
    RunCompleted,
    RunFailed,
    Saving,
)
from comfyui_workflow.runs.model import NodeProgress, OutputFile, Run, RunStatus, new_run_id
from comfyui_workflow.runs.state_machine import apply
from comfyui_workflow.runs.summary import EVERY_RUN, RunFilter, summary_of
from comfyui_workflow.sessions.session import key_of
from comfyui_workflow.stores.base import Store, Wanted
from comfyui_workflow.stores.files.run_directory import RecordReader
from comfyui_workflow.stores.files.run_store import JsonFileStore
from comfyui_workflow.stores.journal import RunJournal
from comfyui_workflow.stores.memory import MemoryStore
from tests.runs.test_state_machine import AT, new_run


def opened(tmp_path: Path) -> JsonFileStore:
    store = JsonFileStore(tmp_path / "data", tmp_path / "state.json")
    store.open()
    return store


@pytest.fixture(params=["memory", "json file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else opened(tmp_path)
    yield made
    made.close()


def run_number(n: int) -> Run:
    return replace(new_run(), run_id=f"comfyui_workflow_17000000{n:02}_abc", queue_time=AT)


def test_a_run_is_kept_as_it_was_given(store: Store) -> None:
    run = run_number(1)
    store.add(run)
    assert store.get(run.run_id) == run
    assert store.get("comfyui_workflow_1_ff") is None
    assert store.get("../../etc/passwd") is None


def test_pages_are_newest_first_and_join_without_gap(store: Store) -> None:
    assert (store.latest(), store.page(5), store.count()) == (None, [], 0)
    for n in (3, 1, 5, 2, 4):
        store.add(run_number(n))
        if n in (1, 5, 4):
            store.update(run_number(n).run_id, lambda run: apply(run, RunCompleted(), AT), Saving.MUST)
    latest = store.latest()
    assert latest is not None
    assert latest.run_id == run_number(5).run_id
    first = store.page(2)
    rest = store.page(9, before=first[-1].run_id)
    assert [run.run_id for run in first + rest] == [run_number(n).run_id for n in (5, 4, 3, 2, 1)]
    assert [run.run_id for run in store.unfinished()] == [run_number(n).run_id for n in (2, 3)]
    assert store.count() == 5


def test_summaries_are_those_of_the_runs_as_they_are_now(store: Store) -> None:
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


def check_summaries(store: Store, count: int) -> None:
    summaries = store.summaries()
    assert summaries == [summary_of(run) for run in store.page(count + 1)]
    assert len(summaries) == store.count() == count


def test_wanted_runs_are_listed_and_counted(store: Store) -> None:
    for n in range(6):
        store.add(in_batch(run_number(n), "b" if n % 2 else None))
    for n in (0, 1, 2):
        store.update(run_number(n).run_id, lambda run: apply(run, RunCompleted(), AT), Saving.MUST)
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


def grouped_pages(store: Store, limit: int, wanted: Wanted) -> list[list[str]]:
    """All of them, each by the last characters of its ids."""
    pages, before = list[list[str]](), None
    while found := store.grouped(limit, before, wanted):
        pages.append([summary.run_id[-6:-4] for summary in found])
        before = found[-1].run_id
    return pages


def test_runs_of_a_batch_are_one_where_its_newest_is_that_is_wanted(store: Store) -> None:
    for n, batch_id in enumerate(["a", "b", None, "a", "b", None, "a", None]):
        store.add(in_batch(run_number(n), batch_id))
    for n in (3, 4, 5):
        store.update(run_number(n).run_id, lambda run: apply(run, RunCompleted(), AT), Saving.MUST)
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
def test_many_runs_are_added_at_once(store: Store, count: int) -> None:
    store.add(run_number(50))
    runs = [run_number(n) for n in reversed(range(count))]
    store.add_all(runs)
    assert store.unfinished() == [*reversed(runs), run_number(50)]
    check_summaries(store, count + 1)
    latest = store.latest()
    assert latest is not None
    assert latest.run_id == run_number(50).run_id


def test_inputs_and_outputs_are_those_of_the_run(store: Store) -> None:
    outputs = (OutputFile(filename="a.png", local_path="/o/a.png"), OutputFile(filename="b", text="x"))
    runs = [replace(run_number(n), outputs=outputs[:n]) for n in range(3)]
    runs = [replace(run, request=replace(run.request, inputs={"1.seed": [1, {"a": None}]})) for run in runs]
    store.add(runs[0])
    store.add_all(runs[1:])
    store.update(runs[2].run_id, lambda run: apply(run, RunCompleted(), AT), Saving.MUST)
    for run in runs:
        assert store.inputs(run.run_id) == run.request.inputs
        assert store.outputs(run.run_id) == run.outputs
    for unknown in ("comfyui_workflow_1_ff", "../../etc/passwd"):
        assert (store.inputs(unknown), store.outputs(unknown)) == (None, None)


def keyed_run(second: int, key: str) -> Run:
    return replace(new_run(), run_id=new_run_id(AT + timedelta(seconds=second), key))


def test_a_run_is_found_by_its_idempotency_key(store: Store) -> None:
    keys = [f"{n:016x}" for n in range(3)]
    runs = [keyed_run(n, key) for n, key in enumerate(keys)]
    store.add_all([runs[2], run_number(4)])
    store.add(runs[0])
    store.update(runs[2].run_id, lambda run: apply(run, RunCompleted(), AT), Saving.MUST)
    assert [store.by_idempotency_key(key) for key in keys] == [runs[0].run_id, None, runs[2].run_id]
    assert store.by_idempotency_key(run_number(4).run_id[-8:]) is None
    again, older = keyed_run(9, keys[0]), keyed_run(-9, keys[0])
    store.add_all([again, older])
    assert store.by_idempotency_key(keys[0]) == again.run_id  # the newest of them


def test_an_idempotency_key_is_known_after_a_restart_without_a_record_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, finished = keyed_run(1, "a" * 16), keyed_run(0, "b" * 16)
    older_finished = keyed_run(-1, "b" * 16)
    store = opened(tmp_path)
    store.add_all([live, finished, older_finished])
    for run in (older_finished, finished):
        RunJournal(store).record(run.run_id, RunCompleted())
    store.close()
    read, opened_records = RecordReader.read, list[str]()

    def counted(reader: RecordReader, path: Path) -> Run:
        opened_records.append(path.name)
        return read(reader, path)

    monkeypatch.setattr(RecordReader, "read", counted)
    again = JsonFileStore(tmp_path / "data", None)
    again.open()
    found = [again.by_idempotency_key(letter * 16) for letter in "abc"]
    assert found == [live.run_id, finished.run_id, None]
    assert opened_records == [live.run_id]
    again.close()


def test_updating_what_is_not_there_says_so(store: Store) -> None:
    with pytest.raises(RunNotFound):
        store.update("comfyui_workflow_1_ff", lambda run: run)


def test_updates_of_one_run_from_many_threads_are_all_kept(store: Store) -> None:
    run = run_number(1)
    store.add(run)

    def give_notices(thread: int) -> None:
        for n in range(16):
            event = NoticeGiven(message=f"{thread}.{n}")
            store.update(run.run_id, lambda run, event=event: apply(run, event, AT))

    threads = [threading.Thread(target=give_notices, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = store.get(run.run_id)
    assert kept is not None
    assert len(kept.notices) == 96


def test_a_finished_run_can_be_taken_up_again(store: Store) -> None:
    run = run_number(1)
    store.add(run)
    journal = RunJournal(store)
    journal.record(run.run_id, RunFailed(code="outputs_missing", message="x"))
    assert store.unfinished() == []
    journal.record(run.run_id, RetryRequested())
    assert [r.status for r in store.unfinished()] == [RunStatus.QUEUED]
    journal.record(run.run_id, RunCompleted())
    assert journal.get(run.run_id).status is RunStatus.COMPLETED


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for n in range(3):
        store.add(run_number(n))
    RunJournal(store).record(run_number(0).run_id, RunCompleted())
    RunJournal(store).record(run_number(1).run_id, PromptPrepared(prompt_id="p", boot_marker="m"))
    before = store.page(9)
    store.close()
    again = opened(tmp_path)
    assert again.page(9) == before
    assert [run.prompt_id for run in again.unfinished()] == ["p", None]
    again.close()


def test_a_record_whose_ssh_string_is_none_any_more_is_loaded_and_its_run_says_so(tmp_path: Path) -> None:
    """An earlier release may have taken it."""
    store = opened(tmp_path)
    store.add(run_number(0))
    store.close()
    record = tmp_path / "data" / "runs" / "live" / run_number(0).run_id / "request.json"
    fields = json.loads(record.read_bytes())
    head = {"version", "crc32"}
    old = {name: value for name, value in fields.items() if name not in head}
    record.write_text(json.dumps({**old, "ssh_connection": "ssh -D 1080 root@host"}))
    again = opened(tmp_path)
    (run,) = again.unfinished()
    assert run.ssh_connection == "ssh -D 1080 root@host"
    assert not again.damage.all()
    with pytest.raises(InvalidAddress, match="dynamic forwarding is not accepted"):
        key_of(run)
    again.close()


def test_nothing_is_lost_when_the_process_is_killed_at_any_moment(tmp_path: Path) -> None:
    """A child saves as fast as it can and is killed; whatever it said was saved is there."""
    script = f"""
import sys
from pathlib import Path
from tests.stores.test_contract import opened, run_number
from comfyui_workflow.stores.journal import RunJournal
from comfyui_workflow.runs.events import NoticeGiven
store = opened(Path({str(tmp_path)!r}))
store.add(run_number(1))
journal = RunJournal(store)
for n in range(100000):
    journal.record(run_number(1).run_id, NoticeGiven(message=str(n % 50)))
    print(n, flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = [int(child.stdout.readline()) for _ in range(30)]
    child.kill()
    child.wait()
    child.stdout.close()
    store = opened(tmp_path)
    (run,) = store.unfinished()
    assert set(run.notices) >= {str(n) for n in said}
    store.close()


def test_a_second_server_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with pytest.raises(ConfigurationError, match="Another server is running on the data directory"):
        opened(tmp_path)
    store.close()
    opened(tmp_path).close()


def test_broken_records_are_made_anew_or_listed_and_the_rest_is_there(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for n in range(3):
        store.add(run_number(n))
    store.close()
    live = tmp_path / "data" / "runs" / "live"
    (live / run_number(0).run_id / "run.jsonl").write_bytes(b'{"workflow_id": "trunc')
    (live / run_number(1).run_id / "request.json").unlink()
    (live / ".new-comfyui_workflow_1_ab").mkdir()
    (live / "comfyui_workflow_1_cd").mkdir()
    again = opened(tmp_path)
    assert [run.run_id for run in again.unfinished()] == [run_number(n).run_id for n in (0, 2)]
    assert again.unfinished()[0].request == run_number(0).request
    listed = again.get(run_number(1).run_id)
    assert listed is not None
    assert (listed.status, listed.error_code) == (RunStatus.FAILED, "record_damaged")
    assert again.get("comfyui_workflow_1_cd") is None
    assert len(list((tmp_path / "data" / "runs" / "set-aside").iterdir())) == 1
    again.close()


@pytest.mark.parametrize(
    "content", [b'{"status": "ha', b"[1, 2]", b'{"name": "of another program"}', b"\xff\xfe"]
)
def test_a_foreign_or_truncated_state_file_is_kept_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.json").write_bytes(content)
    store = opened(tmp_path)
    store.add(run_number(1))
    (aside,) = (tmp_path / "data" / "runs" / "set-aside").iterdir()
    assert aside.read_bytes() == content
    store.close()
    assert json.loads((tmp_path / "state.json").read_text())["workflow_id"] == run_number(1).run_id


def test_the_state_file_mirrors_the_latest_run_privately(tmp_path: Path) -> None:
    store = opened(tmp_path)
    journal = RunJournal(store)
    store.add(run_number(1))
    store.add(run_number(2))
    journal.record(run_number(1).run_id, ExecutionStarted())
    run = journal.record(run_number(2).run_id, CancelRequested())
    store.close()
    assert json.loads((tmp_path / "state.json").read_text()) == progress_document(run)
    assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o600
    record = tmp_path / "data" / "runs" / "live" / run.run_id / "run.jsonl"
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_a_planted_symlink_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "state.json").symlink_to(victim)
    store = opened(tmp_path)
    store.add(run_number(1))
    store.close()
    assert victim.read_text() == "precious"
    assert not (tmp_path / "state.json").is_symlink()


def test_ticks_are_saved_with_the_next_step_or_after_a_second(tmp_path: Path) -> None:
    clock = [100.0]
    store = JsonFileStore(tmp_path / "data", None, clock=lambda: clock[0])
    store.open()
    store.add(run_number(1))
    journal = RunJournal(store)
    record = tmp_path / "data" / "runs" / "live" / run_number(1).run_id / "run.jsonl"

    def tick(value: int) -> None:
        steps = {"2": NodeStep(value=value, maximum=100)}
        journal.record(run_number(1).run_id, NodesAdvanced(steps=steps))

    tick(10)
    assert b"Step 10/100" not in record.read_bytes()
    assert journal.get(run_number(1).run_id).nodes[1].progress == 10.0
    clock[0] += 1.1
    tick(20)
    assert b"Step 20/100" in record.read_bytes()
    tick(30)
    store.close()
    assert b"Step 30/100" in record.read_bytes()


def test_on_a_full_disk_a_step_that_must_be_saved_is_not_taken(
    tmp_path: Path, full_disk: threading.Event
) -> None:
    store = opened(tmp_path)
    store.add(run_number(1))
    journal = RunJournal(store)
    full_disk.set()
    with pytest.raises(StoreError, match="No space left"):
        journal.record(run_number(1).run_id, PromptPrepared(prompt_id="p", boot_marker=None))
    assert journal.get(run_number(1).run_id).prompt_id is None
    with pytest.raises(StoreError):
        store.add(run_number(2))
    with pytest.raises(StoreError):
        store.add_all([run_number(n) for n in range(3, 30)])
    assert store.count() == 1
    assert [path.name for path in (tmp_path / "data" / "runs" / "live").iterdir()] == [run_number(1).run_id]
    run = journal.record(run_number(1).run_id, ExecutionStarted())
    assert run.status is RunStatus.EXECUTING
    full_disk.clear()
    journal.record(run_number(1).run_id, NoticeGiven(message="room again"))
    store.close()
    again = opened(tmp_path)
    (kept,) = again.unfinished()
    assert (kept.status, kept.notices) == (RunStatus.EXECUTING, ("room again",))
    assert not list((tmp_path / "data" / "runs" / "live" / kept.run_id).glob(".*"))
    again.close()


def test_of_runs_added_at_once_all_are_there_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = tmp_path / "data" / "runs" / "live"
    store = opened(tmp_path)
    store.add(run_number(30))
    with pytest.raises(StoreError):
        store.add_all([run_number(n) for n in (28, 29, 30, 31)])  # one of them is there already
    monkeypatch.setattr("comfyui_workflow.files.disk_flush._SYNC_FILE_SYSTEM", lambda _descriptor: -1)
    with pytest.raises(StoreError):
        store.add_all([run_number(n) for n in range(25)])
    assert [path.name for path in live.iterdir()] == [run_number(30).run_id]
    assert store.unfinished() == [run_number(30)]
    store.close()


def test_runs_added_at_once_reach_the_disk_on_every_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = list[Path]()
    monkeypatch.setattr("comfyui_workflow.files.disk_flush._SYNC_FILE_SYSTEM", None)
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(f"os.{name}", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink()))
    store = opened(tmp_path)
    runs = [run_number(n) for n in range(25)]
    store.add_all(runs)
    live = tmp_path / "data" / "runs" / "live"
    records = [live / run.run_id for run in runs]
    files = [record / name for record in records for name in ("request.json", "run.jsonl")]
    assert {live, *records, *files} <= set(synced)
    store.close()


def test_waiting_ends_with_the_change_or_with_the_time(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.add(run_number(1))
    journal = RunJournal(store)
    run_id = run_number(1).run_id
    assert not journal.wait(run_id, lambda run: run.is_finished, timeout_s=0.05).is_finished
    waiter = threading.Thread(target=lambda: journal.record(run_id, RunCompleted()))
    waiter.start()
    began = datetime.now(UTC)
    assert journal.wait(run_id, lambda run: run.is_finished, timeout_s=20).is_finished
    assert datetime.now(UTC) - began < timedelta(seconds=10)
    waiter.join()
    store.close()


def test_a_run_of_thousands_of_outputs_and_nodes_writes_what_is_new_and_not_all_at_each_step(
    tmp_path: Path,
) -> None:
    store = opened(tmp_path)
    nodes = tuple(NodeProgress(node_id=str(number), node_type="SaveImage") for number in range(1000))
    run = replace(run_number(1), nodes=nodes)
    store.add(run)
    journal = RunJournal(store)
    log = tmp_path / "data" / "runs" / "live" / run.run_id / "run.jsonl"
    inode, found = log.stat().st_ino, tuple(OutputFile(filename=f"{n}.png") for n in range(1000))
    journal.record(run.run_id, PromptSucceeded(outputs=found))
    for node, output in zip(nodes, found, strict=True):
        journal.record(run.run_id, NodeStarted(node_id=node.node_id, ends_others=True))
        journal.record(run.run_id, OutputsFetched(outputs=(replace(output, local_path="/o"),)))
    kept = store.get(run.run_id)
    assert kept is not None
    assert (log.stat().st_ino, log.stat().st_size < 5 * len(encode_run(kept))) == (inode, True)
    store.close()
    again = opened(tmp_path)
    assert again.get(run.run_id) == kept
    again.close()


def test_a_log_that_has_grown_long_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfyui_workflow.stores.files.run_log.COMPACT_AFTER_BYTES", 10_000)
    store = opened(tmp_path)
    store.add(run_number(1))
    journal = RunJournal(store)
    log = tmp_path / "data" / "runs" / "live" / run_number(1).run_id / "run.jsonl"
    for number in range(1000):
        journal.record(run_number(1).run_id, PriorityChanged(priority=number))
        if number % 100 == 0:
            assert log.stat().st_size < 50_000
    store.close()
    again = opened(tmp_path)
    assert again.unfinished()[0].priority == 999
    again.close()
