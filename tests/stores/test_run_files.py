"""Runs as JSON files: restarts, damage, full disks, the state file."""

import json
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from comfyui_workflow.errors import ConfigurationError, InvalidAddress, StoreError
from comfyui_workflow.runs.codec import encode_run
from comfyui_workflow.runs.document import progress_document
from comfyui_workflow.runs.events import (
    CancelRequested,
    ExecutionStarted,
    NodesAdvanced,
    NodeStarted,
    NodeStep,
    NoticeAdded,
    OutputsFetched,
    PriorityChanged,
    PromptPrepared,
    PromptSucceeded,
    RunCompleted,
)
from comfyui_workflow.runs.model import NodeProgress, OutputFile, Run, RunStatus
from comfyui_workflow.sessions.session import key_of
from comfyui_workflow.stores.files.run_directory import RecordReader
from comfyui_workflow.stores.files.runs import FileRunStore
from comfyui_workflow.stores.journal import RunJournal
from tests.stores.test_run_contract import keyed_run, opened, run_number


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
    """An earlier release may have accepted it."""
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
    again = FileRunStore(tmp_path / "data", None)
    again.open()
    found = [again.by_idempotency_key(letter * 16) for letter in "abc"]
    assert found == [live.run_id, finished.run_id, None]
    assert opened_records == [live.run_id]
    again.close()


def test_nothing_is_lost_when_the_process_is_killed_at_any_moment(tmp_path: Path) -> None:
    """A child process saves as fast as it can and is killed; everything that it reported as saved exists."""
    script = f"""
import sys
from pathlib import Path
from tests.stores.test_run_contract import keyed_run, opened, run_number
from comfyui_workflow.stores.journal import RunJournal
from comfyui_workflow.runs.events import NoticeAdded
store = opened(Path({str(tmp_path)!r}))
store.add(run_number(1))
journal = RunJournal(store)
for n in range(100000):
    journal.record(run_number(1).run_id, NoticeAdded(message=str(n % 50)))
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


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b'{"workflow_id": "x\0\0', b'{"workflow_id": "cut'])
def test_a_state_file_after_a_power_cut_is_written_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.json").write_bytes(content)
    store = opened(tmp_path)
    store.add(run_number(1))
    store.close()
    assert json.loads((tmp_path / "state.json").read_text())["workflow_id"] == run_number(1).run_id
    assert not (tmp_path / "data" / "runs" / "set-aside").exists() or not any(
        (tmp_path / "data" / "runs" / "set-aside").iterdir()
    )


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
    store = FileRunStore(tmp_path / "data", None, clock=lambda: clock[0])
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
    journal.record(run_number(1).run_id, NoticeAdded(message="room again"))
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
