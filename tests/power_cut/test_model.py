"""Power cuts on any machine: what the server does to its files is recorded, and every worst state that a
model of ext4 and XFS finds possible on the way is held against what the server had said by then."""

import base64
import json
import logging
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.trial import wait_until
from tests.power_cut.judgement import Finding, Kind
from tests.power_cut.model import EXT4, XFS, FileSystem, Record, State, states
from tests.power_cut.orders import Clients
from tests.power_cut.recovered import Recovery, promises_at
from tests.sandbox_process import SandboxProcess
from tests.server_process import FINISHED, ServerProcess

NEEDS_PROC = pytest.mark.skipif(
    sys.platform != "linux", reason="descriptors are read by their names in /proc"
)


@dataclass(frozen=True, kw_only=True)
class Life:
    """Records all writes of a server from its start until every run had ended, and the files at that time."""

    records: list[Record]
    root: Path
    whole: dict[str, bytes]


@pytest.fixture(scope="module", params=["", "busy"], ids=["usual server", "busy server"])
def life(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Life:
    """The record of the busy server contains each flush by itself."""
    directory = tmp_path_factory.mktemp("recorded")
    root, record_file = directory / "disk", directory / "record.jsonl"
    root.mkdir()
    server = ServerProcess(directory / "server", output_dir=root / "outputs")
    server.data_dir, server.state_file = root / "data", root / "data" / "state.json"
    server.arguments = ["-m", "tests.power_cut.recorded_server", str(root), str(record_file), request.param]
    with SandboxProcess(directory / "sandbox") as sandbox, server:
        clients = Clients(
            server=server,
            sandbox=sandbox,
            ssh_string=sandbox.ssh_string,
            output_dir=root / "outputs",
            chance=random.Random(1),
            batch_sizes=(3,),
        )
        clients.order_each()
        every_run = clients.ledger.every_run
        wait_until(
            lambda: all(server.progress(run)["status"] in FINISHED for run in every_run),
            60,
            "not all runs end",
        )
        assert not clients.ledger.refused
        whole = {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return Life(records=[json.loads(line) for line in record_file.open()], root=root, whole=whole)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory that is in memory, where there is one."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="power-cut-", dir=place) as directory:
        yield Path(directory)


@pytest.fixture
def unhindered(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Hundreds of starts: none of them waits for the disk of this machine, or says what it finds."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    caplog.set_level(logging.CRITICAL + 1)


@NEEDS_PROC
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("unhindered")
@pytest.mark.parametrize("file_system", (EXT4, XFS), ids=lambda file_system: file_system.name)
def test_no_state_that_a_cut_may_leave_breaks_a_promise(
    life: Life, file_system: FileSystem, memory: Path
) -> None:
    recovery = Recovery(
        root=life.root,
        place=memory / "disk",
        data="data",
        whole=life.whole,
        in_the_end=promises_at(life.records, len(life.records)),
    )
    seen, broken = 0, Counter[str]()
    examples: dict[str, str] = {}
    for state in states(life.records, file_system):
        seen += 1
        found = recovery.findings(state, promises_at(life.records, state.until))
        broken.update({finding.kind for finding in found})
        for finding in found:
            examples.setdefault(finding.kind, _example(life, state, finding))
    assert seen > 100
    assert not broken, "\n".join(
        [f"of {seen} states", *(f"{count} {kind}: {examples[kind]}" for kind, count in broken.items())]
    )


@NEEDS_PROC
@pytest.mark.timeout(600)
@pytest.mark.parametrize("life", ["busy"], indirect=True, ids=["busy server"])
def test_outputs_on_a_disk_of_their_own_are_there_when_the_run_is_completed(life: Life) -> None:
    """No flush of the records brings their names along."""
    records = list(_of_outputs(life))
    everything = promises_at(records, len(records))
    recovery = Recovery(root=life.root, place=life.root, data="data", whole=life.whole, in_the_end=everything)
    found = [
        str(finding)
        for state in states(records, XFS)
        for finding in recovery.of_files(state, promises_at(records, state.until))
        if finding.kind is not Kind.UPLOAD_LOST
    ]
    assert everything.completed
    assert not found


def _of_outputs(life: Life) -> Iterator[Record]:
    """Simulates another disk for the outputs than for the records."""
    place, inodes = str(life.root / "outputs"), set[int]()
    for record in life.records:
        path, inode = record.get("path", ""), record.get("inode")
        if record["op"] == "mark":
            yield record
        elif path.startswith(place):
            inodes.add(inode)
            yield record
        elif record["op"] == "sync" and inode in inodes:
            written = {each: content for each, content in record["written"].items() if int(each) in inodes}
            yield {**record, "written": written}
        else:
            inodes.discard(inode)


def _example(life: Life, state: State, finding: Finding) -> str:
    def brief(at: int) -> str:
        record = life.records[min(at, len(life.records) - 1)]
        where = record.get("path", record.get("inode", ""))
        return f"{record['op']} {str(where).removeprefix(str(life.root))}"

    names, until = state.names_at, state.until
    return f"{finding.what}; names as after {brief(names)} ({names}), cut before {brief(until)} ({until})"


def _content(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _found(records: list[Record], file_system: FileSystem, path: str) -> set[bytes | None]:
    """Returns the possible contents of the file after a cut at the very end."""
    last = [state for state in states(records, file_system) if state.until == len(records)]
    return {state.files.get(path) for state in last}


def _saved(*, synced: bool, directory_synced: bool) -> Iterator[Record]:
    """A file is replaced by a new one."""
    yield {"op": "mkdir", "path": "/d", "inode": 1}
    yield {"op": "create", "path": "/d/a", "inode": 2}
    yield {"op": "sync", "inode": 2, "content": _content(b"old"), "written": {}}
    yield {"op": "create", "path": "/d/.a", "inode": 3}
    if synced:
        yield {"op": "sync", "inode": 3, "content": _content(b"new"), "written": {}}
    yield {"op": "rename", "path": "/d/.a", "to": "/d/a", "content": _content(b"new")}
    if directory_synced:
        yield {"op": "sync", "inode": 1, "content": None, "written": {}}


@pytest.mark.parametrize(
    ("synced", "directory_synced", "on_ext4", "on_xfs"),
    (
        (True, True, {b"new"}, {b"new"}),
        (True, False, {b"old", b"new"}, {b"old", b"new"}),
        (False, False, {b"old", b"new"}, {b"old", b""}),
        (False, True, {b"new"}, {b""}),
    ),
)
def test_the_model_knows_what_a_replaced_file_may_be(
    synced: bool, directory_synced: bool, on_ext4: set[bytes], on_xfs: set[bytes]
) -> None:
    records = list(_saved(synced=synced, directory_synced=directory_synced))
    assert _found(records, EXT4, "/d/a") == on_ext4
    assert _found(records, XFS, "/d/a") == on_xfs


def test_the_model_lets_a_sync_of_something_else_force_names() -> None:
    renamed = list(_saved(synced=True, directory_synced=False))
    other = [
        {"op": "create", "path": "/d/b", "inode": 4},
        {"op": "sync", "inode": 4, "content": _content(b"b"), "written": {}},
    ]
    assert _found(renamed + other, XFS, "/d/a") == {b"new"}


def test_the_model_lets_a_free_sync_force_nothing() -> None:
    renamed = list(_saved(synced=True, directory_synced=False))
    again = [{"op": "sync", "inode": 2, "content": _content(b"old"), "written": {}}]
    assert b"old" in _found(renamed + again, XFS, "/d/a")


@pytest.mark.parametrize(("file_system", "longer"), ((EXT4, b"line\n\0\0\0\0\0"), (XFS, b"line\nne")))
def test_the_model_knows_what_is_left_of_added_lines(file_system: FileSystem, longer: bytes) -> None:
    records: list[Record] = [
        {"op": "create", "path": "/a", "inode": 2},
        {"op": "sync", "inode": 2, "content": _content(b"line\n"), "written": {"2": _content(b"line\n")}},
        {"op": "create", "path": "/b", "inode": 3},
        {"op": "sync", "inode": 3, "content": "", "written": {"2": _content(b"line\nnext\n")}},
    ]
    assert _found(records, file_system, "/a") == {b"line\n", longer}
