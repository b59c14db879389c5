"""The summary log of finished runs: every line is true, whatever happens to the file."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.codec import decode_summary, encode_run, encode_summary
from comfyui_workflow.runs.events import RetryRequested, RunCompleted, RunFailed
from comfyui_workflow.runs.model import RunStatus
from comfyui_workflow.runs.summary import summary_of
from comfyui_workflow.stores.files import summary_log
from comfyui_workflow.stores.files.record_format import RecordFormat
from comfyui_workflow.stores.files.runs import FileRunStore
from comfyui_workflow.stores.files.summary_log import SummaryLog
from comfyui_workflow.stores.journal import RunJournal
from tests.stores.test_run_contract import check_summaries, in_batch, opened, run_number

ALL = [run_number(n).run_id for n in (2, 1, 0)]


@contextmanager
def reopened(tmp_path: Path) -> Iterator[FileRunStore]:
    store = opened(tmp_path)
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """The file after three runs have failed."""
    with reopened(tmp_path) as store:
        for n in range(3):
            store.add(in_batch(run_number(n), "b"))
            RunJournal(store).record(run_number(n).run_id, RunFailed(code="connection_failed", message="m"))
    return tmp_path / "data" / "runs" / "finished.jsonl"


def record(lines: Path, n: int) -> Path:
    return lines.parent / "finished" / run_number(n).run_id


def told(lines: Path) -> set[str]:
    """Returns the runs in the file, and checks that it has few superfluous lines."""
    read = SummaryLog(lines, RecordFormat()).read()
    assert read.count <= 2 * len(read.found)
    return set(read.found)


def test_the_list_is_read_from_one_file(tmp_path: Path, lines: Path) -> None:
    for n in range(3):
        (record(lines, n) / "run.jsonl").write_bytes(b"not looked at")
    with reopened(tmp_path) as store:
        assert [summary.run_id for summary in store.summaries()] == ALL
        assert [summary.run_id for summary in store.of_batch("b")] == ALL[::-1]
    assert lines.stat().st_mode & 0o777 == 0o600


SPOILED: dict[str, Callable[[bytes], bytes]] = {
    "not there": lambda _content: b"",
    "the last line is torn": lambda content: content[:-20],
    "only the last line break is missing": lambda content: content[:-1],
    "the first line is torn": lambda content: content[20:],
    "zeros, as after a power cut": lambda content: content[:300] + b"\0" * (len(content) - 300),
    "garbage between": lambda content: content.replace(b"\n", b"\n\xff\xfe[[[\n\n7\n{}\nnull\n", 1),
    "a line that nests too deep": lambda content: content + b"[" * 100_000 + b"\n",
    "twice": lambda content: content * 2,
    "ten times": lambda content: content * 10,
    "a run that there is not": lambda content: (
        content + content.splitlines()[0].replace(b"000_", b"999_") + b"\n"
    ),
    "numbers that are none": lambda content: content.replace(b'"status"', b'"gpu_s":NaN,"status"'),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_whatever_the_file_says_the_list_is_true(
    tmp_path: Path, lines: Path, spoil: Callable[[bytes], bytes]
) -> None:
    lines.write_bytes(spoil(lines.read_bytes()))
    with reopened(tmp_path) as store:
        check_summaries(store, 3)
        store.add(run_number(3))
        RunJournal(store).record(run_number(3).run_id, RunCompleted())
        assert told(lines) == {run_number(3).run_id, *ALL}
    with reopened(tmp_path) as store:
        check_summaries(store, 4)
    assert told(lines) == {run_number(3).run_id, *ALL}


@pytest.mark.parametrize(
    ("spoil", "is_told"),
    [
        (SPOILED["the last line is torn"], False),
        (SPOILED["zeros, as after a power cut"], False),
        (lambda content: content[:-50] + b"\0" * 50 + b"\n" + content, False),
        (SPOILED["the first line is torn"], True),
        (SPOILED["garbage between"], True),
    ],
    ids=["cut short", "zeros at the end", "zeros, and lines after them", "torn", "garbage"],
)
def test_only_what_a_power_cut_does_not_leave_is_told_as_damage(
    tmp_path: Path, lines: Path, spoil: Callable[[bytes], bytes], is_told: bool
) -> None:
    lines.write_bytes(spoil(lines.read_bytes()))
    for told_now in (is_told, False):
        with reopened(tmp_path) as store:
            check_summaries(store, 3)
            assert [Path(each.path).name for each in store.damage.all()] == ["finished.jsonl"] * told_now


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_what_is_no_file_of_ours_is_set_aside(tmp_path: Path, lines: Path, kind: str) -> None:
    lines.unlink()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    match kind:
        case "link":
            lines.symlink_to(victim)
        case "directory":
            lines.mkdir()
        case "pipe":
            os.mkfifo(lines)
    with reopened(tmp_path) as store:
        check_summaries(store, 3)
    assert len(told(lines)) == 3
    assert victim.read_text() == "precious"


def test_what_has_no_directory_is_not_listed(tmp_path: Path, lines: Path) -> None:
    record(lines, 1).rename(tmp_path / "elsewhere")
    with reopened(tmp_path) as store:
        assert [summary.run_id for summary in store.summaries()] == [ALL[0], ALL[2]]
    assert len(told(lines)) == 2


def test_a_record_that_cannot_be_read_is_listed_with_the_reason(tmp_path: Path, lines: Path) -> None:
    lines.unlink()
    (record(lines, 1) / "run.jsonl").write_bytes(b"{")
    with reopened(tmp_path) as store:
        check_summaries(store, 3)
        damaged = store.summaries()[1]
        assert (damaged.status, damaged.error_code) == (RunStatus.FAILED, "record_damaged")


def test_a_run_that_was_taken_up_again_is_never_told_of_as_before(tmp_path: Path, lines: Path) -> None:
    """Even if everything that was written after the retry is lost."""
    with reopened(tmp_path) as store:
        RunJournal(store).record(ALL[0], RetryRequested())
        struck = lines.read_bytes()
        RunJournal(store).record(ALL[0], RunCompleted())
    lines.write_bytes(struck)
    with reopened(tmp_path) as store:
        check_summaries(store, 3)
        assert store.summaries(1)[0].status is RunStatus.COMPLETED
    with reopened(tmp_path) as store:
        assert store.summaries(1)[0].status is RunStatus.COMPLETED


def test_a_line_of_a_run_that_is_live_does_not_stay(tmp_path: Path, lines: Path) -> None:
    record(lines, 1).rename(lines.parent / "live" / ALL[1])
    run_json = lines.parent / "live" / ALL[1] / "run.jsonl"
    run_json.write_bytes(encode_run(run_number(1)) + b"\n")
    with reopened(tmp_path) as store:
        check_summaries(store, 3)
    assert told(lines) == {ALL[2], ALL[0]}


def test_on_a_full_disk_a_run_ends_and_the_list_knows(
    tmp_path: Path, lines: Path, full_disk: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lines.read_bytes()
    with reopened(tmp_path) as store:
        store.add(run_number(3))
        append = store._summary_log._append

        def on_a_full_disk(line: bytes) -> int:
            full_disk.set()
            try:
                return append(line)
            finally:
                full_disk.clear()

        monkeypatch.setattr(store._summary_log, "_append", on_a_full_disk)
        RunJournal(store).record(run_number(3).run_id, RunCompleted())
        check_summaries(store, 4)
        with pytest.raises(StoreError, match="No space left"):
            RunJournal(store).record(ALL[0], RetryRequested())
        check_summaries(store, 4)
        assert store.summaries(2)[1].status is RunStatus.FAILED
    assert lines.read_bytes() == before
    with reopened(tmp_path) as store:
        check_summaries(store, 4)
    assert len(told(lines)) == 4


def test_the_list_is_true_after_a_kill_at_any_moment(tmp_path: Path) -> None:
    """A child process ends runs and retries them as fast as it can, and is killed."""
    script = f"""
import sys
from pathlib import Path
from comfyui_workflow.stores.files.summary_log import SummaryLog
from tests.stores.test_run_contract import opened, run_number
from comfyui_workflow.stores.journal import RunJournal
from comfyui_workflow.runs.events import NoticeAdded, RetryRequested, RunFailed
store = opened(Path({str(tmp_path)!r}))
journal = RunJournal(store)
if not store.count():
    store.add_all([run_number(n) for n in range(20)])
for run in store.unfinished():
    journal.record(run.run_id, RunFailed(code="connection_failed", message="first"))
for turn in range(100000):
    run_id = run_number(turn % 20).run_id
    journal.record(run_id, RetryRequested())
    journal.record(run_id, NoticeAdded(message=str(turn)))
    journal.record(run_id, RunFailed(code="connection_failed", message=str(turn)))
    print(turn, flush=True)
"""
    for turns in (3, 17, 40):
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        said = [int(child.stdout.readline()) for _ in range(turns)]
        child.kill()
        child.wait()
        child.stdout.close()
        with reopened(tmp_path) as store:
            check_summaries(store, 20)
            told_of = {summary.run_id: summary.error_message for summary in store.summaries()}
        last = run_number(said[-1] % 20).run_id
        assert told_of[last] in (None, *(str(turn) for turn in range(said[-1], said[-1] + 100)))


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"{}\n" * 400)])
def test_a_file_that_somebody_changes_while_the_server_runs_tells_nothing_false(
    tmp_path: Path, lines: Path, change: Callable[[Path], object]
) -> None:
    with reopened(tmp_path) as store:
        store.summaries(1)
        change(lines)
        check_summaries(store, 3)
        store.add(run_number(3))
        RunJournal(store).record(run_number(3).run_id, RunCompleted())
        check_summaries(store, 4)
    with reopened(tmp_path) as store:
        check_summaries(store, 4)


def test_summaries_are_read_from_the_file_and_the_last_ones_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary_log, "MOST_CACHED", 2)
    log = SummaryLog(tmp_path / "finished.jsonl", RecordFormat())
    told = [replace(summary_of(run_number(n)), message="ä" * 5000 * n) for n in range(4)]
    for summary in told:
        log.append(summary)
        log.append(summary)
    for _ in range(2):
        assert [log.get(each.run_id) for each in told] == told
        assert len(log._cache) == 2
    again = SummaryLog(log.path, RecordFormat())
    again.load(again.read().found, is_rewritten=True)
    log.strike_out(told[0].run_id)
    assert log.get(told[0].run_id) is None
    assert [again.get(each.run_id) for each in told] == told
    for each in (log, again):
        each.close()


def test_a_summary_of_everything_that_is_not_usual_is_kept() -> None:
    run = in_batch(run_number(1), "b")
    summary = replace(summary_of(run), gpu_s=1.5, price_per_hour=0.3, message="ä\n\u2028\x00")
    line = encode_summary(summary)
    assert b"\n" not in line
    assert len(line.splitlines()) == 1
    assert decode_summary(line) == summary
