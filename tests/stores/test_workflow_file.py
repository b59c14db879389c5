"""A workflow of many runs is on disk once and in memory once, and each record is still complete."""

import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyui_workflow.errors import StoreError
from comfyui_workflow.files.atomic_write import read_regular
from comfyui_workflow.runs.codec import encode_run
from comfyui_workflow.runs.events import (
    ExecutedTwice,
    NoticeAdded,
    RetryRequested,
    RunCompleted,
    RunFailed,
)
from comfyui_workflow.runs.model import Run, RunStatus
from comfyui_workflow.stores.files import runs as run_files
from comfyui_workflow.stores.files.record_format import RecordFormat
from comfyui_workflow.stores.files.runs import FileRunStore
from comfyui_workflow.stores.files.workflow_file import WorkflowReader
from comfyui_workflow.stores.journal import RunJournal
from comfyui_workflow.workflows.graph import check_graph
from comfyui_workflow.workflows.model import Workflow
from tests.fuzz.effort import effort
from tests.runs.test_state_machine import new_run

link = os.link
EDITOR_FILE = {"nodes": [{"id": 1, "type": "LoadImage"}], "links": [], "version": 0.4}


def opened(directory: Path) -> FileRunStore:
    store = FileRunStore(directory / "data", None)
    store.open()
    return store


def graph(color: int) -> dict[str, object]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"color": color, "is_large": True, "scale": 1.0}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    }


def runs_of(
    given: dict[str, object] | Workflow, numbers: range, editor_file: dict[str, object] | None = None
) -> list[Run]:
    workflow = given if isinstance(given, Workflow) else Workflow(graph=given, editor_file=editor_file)
    first = new_run(dict(workflow.graph))
    return [
        replace(
            first,
            run_id=f"comfyui_workflow_17000000{n:02}_abc",
            request=replace(first.request, inputs={"1.color": n}, workflow=workflow),
        )
        for n in numbers
    ]


def live(directory: Path) -> Path:
    return directory / "data" / "runs" / "live"


def files(directory: Path, run: Run) -> set[str]:
    return {path.name for path in (live(directory) / run.run_id).iterdir()}


def workflow_path(directory: Path, run: Run) -> Path:
    return live(directory) / run.run_id / "workflow.json"


def test_one_workflow_of_many_runs_is_one_file_and_after_a_restart_one_object(tmp_path: Path) -> None:
    store = opened(tmp_path)
    shared = runs_of(graph(1), range(20), editor_file=EDITOR_FILE)
    others = runs_of(graph(2), range(20, 22))
    (alone,) = runs_of(graph(3), range(22, 23))
    store.add_all([*shared, *others, alone])
    store.close()
    status = workflow_path(tmp_path, shared[0]).stat()
    assert {workflow_path(tmp_path, run).stat().st_ino for run in shared} == {status.st_ino}
    assert (status.st_nlink, stat.S_IMODE(status.st_mode)) == (20, 0o600)
    assert workflow_path(tmp_path, others[0]).stat().st_nlink == 2
    assert files(tmp_path, shared[3]) == {"request.json", "run.jsonl", "workflow.json"}
    request = json.loads((live(tmp_path) / shared[3].run_id / "request.json").read_bytes())
    assert request["inputs"] == {"1.color": 3}
    assert not {"graph", "editor_file"} & request.keys()
    again = opened(tmp_path)
    found = again.unfinished()
    assert found == [*shared, *others, alone]
    assert len({id(run.request.workflow) for run in found}) == 3
    assert len({id(run.nodes) for run in found[:20]}) == 1
    again.close()


def test_a_run_that_is_added_alone_has_its_workflow_in_its_request(tmp_path: Path) -> None:
    store = opened(tmp_path)
    run, other = runs_of(graph(1), range(2))
    store.add(run)
    store.add(other)
    assert files(tmp_path, run) == files(tmp_path, other) == {"request.json", "run.jsonl"}
    store.close()


def test_records_with_the_workflow_inside_are_read_and_listed(tmp_path: Path) -> None:
    """Record in the old form: `request.json` contains everything."""
    store = opened(tmp_path)
    runs = runs_of(graph(1), range(3))
    store.add_all(runs)
    RunJournal(store).record(runs[0].run_id, RunFailed(code="outputs_missing", message="x"))
    store.close()
    for run in runs:
        place = "finished" if run is runs[0] else "live"
        record = live(tmp_path).parent / place / run.run_id
        request = json.loads((record / "request.json").read_bytes())
        (record / "workflow.json").unlink()
        (record / "request.json").write_text(json.dumps({**request, "graph": graph(1), "editor_file": None}))
    again = opened(tmp_path)
    assert again.unfinished() == runs[1:]
    failed = again.get(runs[0].run_id)
    assert failed is not None
    assert (failed.request, again.inputs(failed.run_id)) == (runs[0].request, {"1.color": 0})
    RunJournal(again).record(failed.run_id, RetryRequested())
    assert len(again.unfinished()) == 3
    again.close()


@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV, errno.ENOTSUP], ids=errno.errorcode.get)
def test_where_there_are_no_links_there_are_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("os.link", no_links(number))
    store = opened(tmp_path)
    runs = runs_of(graph(1), range(3))
    store.add_all(runs)
    store.close()
    assert [workflow_path(tmp_path, run).stat().st_nlink for run in runs] == [1, 1, 1]
    assert {stat.S_IMODE(workflow_path(tmp_path, run).stat().st_mode) for run in runs} == {0o600}
    again = opened(tmp_path)
    assert again.unfinished() == runs
    assert len({id(run.request.workflow.graph) for run in again.unfinished()}) == 1
    again.close()


def no_links(number: int) -> Callable[..., None]:
    def refuse(source: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(source))

    return refuse


def test_a_file_that_has_all_the_links_it_may_have_is_written_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def few(source: Path, path: Path, *, follow_symlinks: bool) -> None:
        if source.stat().st_nlink >= 3:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(source, path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr("os.link", few)
    store = opened(tmp_path)
    runs = runs_of(graph(1), range(7))
    store.add_all(runs)
    assert [workflow_path(tmp_path, run).stat().st_nlink for run in runs] == [3, 3, 3, 3, 3, 3, 1]
    store.close()


def test_without_links_a_full_disk_leaves_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, path: Path, **_: object) -> None:
        path.write_bytes(b"")  # so that nothing else can be written there either
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = opened(tmp_path)
    monkeypatch.setattr("os.link", refuse)
    with pytest.raises(StoreError, match="cannot be saved"):
        store.add_all(runs_of(graph(1), range(3)))
    assert (store.count(), list(live(tmp_path).iterdir())) == (0, [])
    store.close()


def test_each_record_is_whole_when_it_is_moved_and_when_the_others_are_gone(tmp_path: Path) -> None:
    store = opened(tmp_path)
    runs = runs_of(graph(1), range(3))
    store.add_all(runs)
    RunJournal(store).record(runs[0].run_id, RunCompleted())
    store.close()
    opened(tmp_path / "other").close()
    shutil.copytree(live(tmp_path) / runs[1].run_id, live(tmp_path / "other") / runs[1].run_id)
    shutil.rmtree(live(tmp_path) / runs[1].run_id)
    shutil.rmtree(live(tmp_path) / runs[2].run_id)
    here, there = opened(tmp_path), opened(tmp_path / "other")
    completed = here.get(runs[0].run_id)
    assert completed is not None
    assert completed.request == runs[0].request
    assert there.unfinished() == [runs[1]]
    here.close()
    there.close()


def test_what_a_server_left_half_added_takes_nothing_from_others(tmp_path: Path) -> None:
    store = opened(tmp_path)
    runs = runs_of(graph(1), range(3))
    store.add_all(runs)
    store.close()
    (live(tmp_path) / ".new-comfyui_workflow_1_ab").mkdir()
    (live(tmp_path) / runs[2].run_id).rename(live(tmp_path) / ".new-comfyui_workflow_1_ab" / "x")
    again = opened(tmp_path)
    assert again.unfinished() == runs[:2]
    assert workflow_path(tmp_path, runs[0]).stat().st_nlink == 2
    again.close()


@pytest.mark.parametrize("name", ["workflow.json", "request.json", "run.jsonl"])
@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "missing", "broken"])
def test_what_is_no_file_of_ours_is_not_read_and_keeps_nobody_waiting(
    tmp_path: Path, kind: str, name: str
) -> None:
    store = opened(tmp_path)
    runs = runs_of(graph(1), range(3))
    store.add_all(runs)
    store.close()
    path = live(tmp_path) / runs[1].run_id / name
    path.rename(tmp_path / "outside")
    match kind:
        case "link":
            path.symlink_to(tmp_path / "outside")  # to what would be right
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "broken":
            path.write_bytes(b'{"graph": 5}')
    again = opened(tmp_path)
    assert [run for run in again.unfinished() if run.run_id != runs[1].run_id] == [runs[0], runs[2]]
    there = again.get(runs[1].run_id)
    assert there is not None
    assert there.status is (RunStatus.QUEUED if name == "run.jsonl" else RunStatus.FAILED)
    assert there.request.batch_id == (runs[1].request.batch_id if name != "request.json" else None)
    assert len(again.damage.all()) >= 1
    assert len(list((tmp_path / "data" / "runs" / "set-aside").iterdir())) == (kind != "missing")
    again.close()
    once_more = opened(tmp_path)
    assert once_more.damage.all() == []
    assert once_more.get(runs[1].run_id) == there
    once_more.close()


def test_a_graph_that_runs_share_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[object] = []
    monkeypatch.setattr(
        run_files,
        "check_graph",
        lambda given: checked.append(check_graph(given)),
    )
    store = opened(tmp_path)
    good, bad = runs_of(graph(1), range(4)), runs_of(graph(2), range(4, 6))
    store.add_all([*good, *bad])
    store.close()
    workflow_path(tmp_path, bad[0]).write_text('{"graph": {"1": {}}}')  # and so that of the other
    again = opened(tmp_path)
    assert again.unfinished() == good
    assert checked[0] == graph(1)
    assert {again.summaries()[n].error_code for n in (0, 1)} == {"record_damaged"}
    again.close()


def test_a_changed_step_of_one_run_is_not_that_of_another(tmp_path: Path) -> None:
    store = opened(tmp_path)
    runs = runs_of(graph(1), range(3))
    store.add_all(runs)
    store.close()
    path = live(tmp_path) / runs[1].run_id / "run.jsonl"
    state = json.loads(path.read_bytes())
    state["nodes"][0].update(progress=40.0, status="executing")
    path.write_text(json.dumps(state))
    again = opened(tmp_path)
    assert [run.nodes[0].progress for run in again.unfinished()] == [0.0, 40.0, 0.0]
    state["nodes"][0]["progress"] = 101
    again.close()
    path.write_text(json.dumps(state))
    again = opened(tmp_path)
    assert [run.nodes[0].progress for run in again.unfinished()] == [0.0, 0.0, 0.0]  # made anew
    again.close()


def test_a_text_that_looks_like_nodes_is_none(tmp_path: Path) -> None:
    store = opened(tmp_path)
    runs = runs_of(graph(1), range(4))
    text = f'"nodes":{json.dumps([asdict(node) for node in runs[0].nodes], separators=(",", ":"))},'
    assert text.encode() in encode_run(runs[0])
    runs = [replace(run, message=text if n else None) for n, run in enumerate(runs)]
    runs[2] = replace(runs[2], nodes=())
    runs[3] = replace(runs[3], nodes=(replace(runs[3].nodes[0], title=text),))
    store.add_all(runs)
    store.close()
    again = opened(tmp_path)
    assert again.unfinished() == runs
    again.close()


def test_the_links_are_on_the_disk_before_the_runs_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = list[Path]()
    monkeypatch.setattr("comfyui_workflow.stores.files.run_directory.flush_to_disk", flushed.extend)
    store = opened(tmp_path)
    runs = runs_of(graph(1), range(3))
    store.add_all(runs)
    records = [live(tmp_path) / run.run_id for run in runs]
    assert {record / "workflow.json" for record in records} | set(records) <= set(flushed)
    store.close()


def test_a_run_that_is_taken_up_again_while_it_is_read_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, read = opened(tmp_path), WorkflowReader.read
    runs = runs_of(graph(1), range(2))
    store.add_all(runs)
    journal = RunJournal(store)
    journal.record(runs[0].run_id, RunFailed(code="outputs_missing", message="x"))

    def take_up_first(reader: WorkflowReader, path: Path) -> Workflow | None:
        monkeypatch.setattr(WorkflowReader, "read", read)
        journal.record(runs[0].run_id, RetryRequested())
        return read(reader, path)

    monkeypatch.setattr(WorkflowReader, "read", take_up_first)
    found = store.get(runs[0].run_id)
    assert found is not None
    assert found.status is RunStatus.QUEUED
    store.close()


def test_a_finished_run_is_found_while_its_record_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that a copy of the run's prompt has run."""
    store = opened(tmp_path)
    (run,) = runs_of(graph(1), range(1))
    store.add_all([run])
    journal = RunJournal(store)
    journal.record(run.run_id, RunCompleted())
    seen: list[Run | None] = []
    monkeypatch.setattr(
        run_files,
        "flush_to_disk",
        lambda _: seen.append(store.get(run.run_id)),
    )
    noted = journal.record(run.run_id, ExecutedTwice(message="twice"))
    assert (noted.status, noted.notices) == (RunStatus.COMPLETED, ("twice",))
    assert seen
    assert None not in seen
    assert store.get(run.run_id) == noted
    assert store.unfinished() == []
    store.close()


def test_a_reader_holds_only_so_many_workflows(tmp_path: Path) -> None:
    for color in range(4):
        (tmp_path / str(color)).mkdir()
        (tmp_path / str(color) / "workflow.json").write_text(json.dumps({"graph": graph(color)}))
    reader = WorkflowReader(2, RecordFormat())
    read = [reader.read(tmp_path / str(color)) for color in (0, 1, 1, 0, 2, 3, 0, 2)]
    assert [each and each.graph for each in read] == [graph(color) for color in (0, 1, 1, 0, 2, 3, 0, 2)]
    assert read[0] is read[3]
    assert read[0] is not read[6]
    (tmp_path / "0" / "workflow.json").unlink()
    assert reader.read(tmp_path / "0") is None


def test_a_large_file_is_read_to_its_end(tmp_path: Path) -> None:
    for content in (b"", b"x", os.urandom(3_000_000)):
        (tmp_path / "file").write_bytes(content)
        assert read_regular(tmp_path / "file") == content


@effort(40)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 2), st.sampled_from([None, EDITOR_FILE]), st.booleans()), max_size=6
        ),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
def test_whatever_runs_share_they_are_there_after_a_restart(
    batches: list[list[tuple[int, object, bool]]], has_links: bool
) -> None:
    """Each batch is a list of (which workflow, its editor file, whether the run is finished)."""
    workflows: dict[str, Workflow] = {}

    def workflow(color: int, editor_file: Any) -> Workflow:
        made = Workflow(graph=graph(color), editor_file=editor_file)
        return workflows.setdefault(json.dumps([color, editor_file]), made)

    with (
        tempfile.TemporaryDirectory() as name,
        nullcontext() if has_links else patch("os.link", no_links(errno.EPERM)),
    ):
        store, numbers = opened(Path(name)), iter(range(100))
        journal = RunJournal(store)
        for batch in batches:
            added = [
                runs_of(workflow(color, editor_file), range(n, n + 1))[0]
                for (color, editor_file, _), n in zip(batch, numbers, strict=False)
            ]
            store.add_all(added)
            for run, (_, _, is_finished) in zip(added, batch, strict=True):
                event = RunCompleted() if is_finished else NoticeAdded(message="seen")
                journal.record(run.run_id, event)
        expected = store.page(100)
        store.close()
        again = opened(Path(name))
        assert again.page(100) == expected
        assert [again.inputs(run.run_id) for run in expected] == [run.request.inputs for run in expected]
        again.close()
