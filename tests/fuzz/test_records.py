"""Whatever lies in the data directory: the store opens, sets aside what is no record, the rest is there."""

import itertools
import json
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from comfyui_workflow.runs.codec import encode_request, encode_run, encode_workflow
from comfyui_workflow.runs.document import progress_document, summary_document
from comfyui_workflow.runs.events import (
    NodesAdvanced,
    NodeStep,
    NoticeAdded,
    RetryRequested,
    RunFailed,
)
from comfyui_workflow.runs.model import LostParts, OutputFile, Run, RunStatus
from comfyui_workflow.runs.state_machine import apply
from comfyui_workflow.runs.summary import summary_of
from comfyui_workflow.stores.files.runs import FileRunStore
from comfyui_workflow.workflows.graph import check_graph
from tests.fuzz.effort import effort
from tests.fuzz.values import mutations, values, wire
from tests.runs.test_state_machine import AT, new_run


def run_number(number: int) -> Run:
    run = replace(new_run(), run_id=f"comfyui_workflow_1700000000_{number:04x}")
    run = apply(run, NodesAdvanced(steps={"1": NodeStep(value=3, maximum=7)}), AT)
    return replace(run, outputs=(OutputFile(filename="a.png", local_path="/o/a.png"),))


def failed(run: Run) -> Run:
    return apply(run, RunFailed(code="connection_failed", message="no"), AT)


SPOILED, NEIGHBOUR = run_number(1), run_number(2)
RECORDS = {
    "request.json": json.loads(encode_request(SPOILED.request)),
    "run.jsonl": json.loads(encode_run(SPOILED)),
}
APART = {
    "request.json": json.loads(encode_request(SPOILED.request, has_workflow=False)),
    "run.jsonl": RECORDS["run.jsonl"],
    "workflow.json": json.loads(encode_workflow(SPOILED.request.workflow)),
}
TIMES = [
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-12:00",
    "2026-01-02T03:04:05",
    1e18,
    "2026-01-02T03:04:05Z",
]
contents = st.one_of(
    st.binary(max_size=50),
    st.sampled_from([b"", b"null", b"[" * 100_000, b'{"a":' * 500, b"\xff\xfe", b"1" * 5000]),
    values.map(lambda value: wire(value).encode()),
)


@st.composite
def spoiled_records(draw: st.DrawFn) -> dict[str, bytes | None]:
    """The files of a record, one of them not as it was written; None is a missing one."""
    records = draw(st.sampled_from([RECORDS, APART]))
    files: dict[str, bytes | None] = {name: wire(record).encode() for name, record in records.items()}
    name = draw(st.sampled_from(list(files)))
    others = st.one_of(
        values, st.sampled_from(TIMES), st.sampled_from(["executing", "completed", "failed", "../../x"])
    )
    changed = mutations(records[name], others=others).map(lambda record: wire(record).encode())
    cut = st.integers(0, len(files[name] or b"")).map(lambda end: (files[name] or b"")[:end])
    files[name] = draw(st.one_of(changed, changed, changed, contents, cut, st.none()))
    return files


def write(directory: Path, files: dict[str, bytes | None]) -> None:
    directory.mkdir(parents=True)
    for name, content in files.items():
        if content is not None:
            (directory / name).write_bytes(content)


def good(run: Run) -> dict[str, bytes | None]:
    return {"request.json": encode_request(run.request), "run.jsonl": encode_run(run)}


def check_store(root: Path, state: bytes | None = None) -> None:
    """Everything a server does with a store, and the neighbour as it was."""
    state_file = root / "state.json"
    if state is not None:
        state_file.write_bytes(state)
    store = FileRunStore(root, state_file)
    store.open()
    try:
        for run in store.unfinished():
            if LostParts.WORKFLOW not in run.lost:
                check_graph(run.request.workflow.graph)  # what will be submitted
        for run_id in {run.run_id for run in [*store.unfinished(), *store.page(100)]}:
            check_run(store, run_id)
        assert NEIGHBOUR.run_id in [run.run_id for run in store.page(1000)]
        found = store.get(NEIGHBOUR.run_id)
        assert found is not None
        assert found.request == NEIGHBOUR.request
        assert store.latest() is not None
        store.update(
            NEIGHBOUR.run_id, lambda run: apply(run, NoticeAdded(message="x"), AT + timedelta(days=1))
        )
        assert (root.parent / "outside").read_text() == "untouched"
    finally:
        store.close()


def check_run(store: FileRunStore, run_id: str) -> None:
    run = store.get(run_id)
    assert run is not None
    assert run.run_id == run_id
    assert wire([store.inputs(run_id)]) == wire([run.request.inputs])
    assert store.outputs(run_id) == run.outputs
    for document in (progress_document(run), summary_document(summary_of(run))):
        json.dumps(document, allow_nan=False).encode()
    change = RetryRequested() if run.is_finished else NoticeAdded(message="seen")
    changed = store.update(run_id, lambda run: apply(run, change, AT + timedelta(days=1)))
    assert changed.run_id == run_id
    assert store.get(run_id) == changed


def with_spoiled(place: str, files: dict[str, bytes | None], state: bytes | None = None) -> None:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "outside").write_text("untouched")
        root = Path(directory) / "data"
        write(root / "runs" / "live" / NEIGHBOUR.run_id, good(NEIGHBOUR))
        write(root / "runs" / place / SPOILED.run_id, files)
        check_store(root, state)
        check_store(root)  # and the next start


def bytes_of(**changes: object) -> dict[str, bytes | None]:
    return {**good(SPOILED), "run.jsonl": wire({**RECORDS["run.jsonl"], **changes}).encode()}


@effort(80)
@given(place=st.sampled_from(["live", "finished"]), files=spoiled_records())
@example(place="live", files=bytes_of(workflow_id="../../../outside"))
@example(place="live", files=bytes_of(workflow_id="comfyui_workflow_1_ab", status="failed"))
@example(place="live", files=bytes_of(queue_time=TIMES[0]))
@example(place="live", files=bytes_of(queue_time=TIMES[1]))
@example(place="live", files=bytes_of(last_update=TIMES[2]))
@example(place="live", files=bytes_of(nodes=[{"node_id": "1", "node_type": "x", "progress": float("nan")}]))
@example(
    place="live",
    files={**good(SPOILED), "request.json": wire({**RECORDS["request.json"], "graph": {"1": 5}}).encode()},
)
@example(place="live", files={**good(SPOILED), "run.jsonl": b"[" * 100_000})
def test_a_spoiled_record_takes_nothing_else_with_it(place: str, files: dict[str, bytes | None]) -> None:
    with_spoiled(place, files)


@effort(60)
@given(contents | mutations(progress_document(SPOILED)).map(lambda state: wire(state).encode()))
@example(b"[" * 100_000)
@example(b"1" * 5000)
def test_a_spoiled_state_file_keeps_no_server_from_starting(state: bytes) -> None:
    with_spoiled("finished", good(failed(SPOILED)), state)


@pytest.mark.parametrize("place", ["live", "finished", "set-aside"])
@pytest.mark.parametrize(
    "name", ["x", ".new-x", "x" * 255, "comfyui_workflow_9_ab", "\udcff", "a\nb"], ids=ascii
)
@pytest.mark.parametrize("kind", ["file", "directory", "link", "full"])
def test_a_stray_thing_in_the_data_directory_is_no_obstacle(
    tmp_path: Path, place: str, name: str, kind: str
) -> None:
    (tmp_path / "outside").write_text("untouched")
    root = tmp_path / "data"
    write(root / "runs" / "live" / NEIGHBOUR.run_id, good(NEIGHBOUR))
    there = root / "runs" / place / name
    there.parent.mkdir(exist_ok=True)
    match kind:
        case "file":
            there.write_bytes(b"x")
        case "directory":
            there.mkdir()
        case "link":
            there.symlink_to(tmp_path / "outside")
        case "full":
            write(there, good(SPOILED))
    check_store(root)


def test_finished_records_that_cannot_be_read_do_not_end_the_list(tmp_path: Path) -> None:
    store = FileRunStore(tmp_path, None)
    store.open()
    ids = [f"comfyui_workflow_1700000000_{number:04x}" for number in range(40)]
    for run_id, number in zip(ids, itertools.count()):
        run = failed(replace(run_number(0), run_id=run_id))
        write(tmp_path / "runs" / "finished" / run_id, good(run) if number < 5 else {"run.jsonl": b"{"})
    store.close()
    store.open()
    assert [run.run_id for run in store.page(3)] == ids[4:1:-1]
    assert [run.run_id for run in store.page(3, before=ids[2])] == ids[1::-1]
    latest = store.latest()
    assert latest is not None
    assert (latest.run_id, latest.status) == (ids[4], RunStatus.FAILED)
    store.close()
