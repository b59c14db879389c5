"""The directory of one run: request.json, run.jsonl (the log of its changes), and graph.json once it was made
of the request. The workflow is in the request, or beside it in workflow.json where other runs have it, too.
Older records have the state in run.json, without a log.

Files are added and lines appended; the only file that is ever replaced is a log that has grown long. So a
power cut can take what was not flushed yet, and nothing else.
"""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from comfyui_workflow.errors import StoreError
from comfyui_workflow.files.atomic_write import (
    read_regular,
    write_atomically,
    write_new,
)
from comfyui_workflow.files.disk_flush import flush_to_disk
from comfyui_workflow.runs.changes import begins_with_state
from comfyui_workflow.runs.codec import (
    NodeMemory,
    SubmissionRecord,
    decode_graph,
    decode_inputs,
    decode_outputs,
    decode_run,
    decode_submission,
    encode_request,
    encode_run,
    encode_submission,
)
from comfyui_workflow.runs.model import OutputFile, Run, is_run_id
from comfyui_workflow.stores.files.record_format import RecordFormat
from comfyui_workflow.stores.files.run_log import GRAPH, LOG, LogRead, read_log
from comfyui_workflow.stores.files.workflow_file import WorkflowReader, WorkflowWriter
from comfyui_workflow.workflows.model import Workflow

log = logging.getLogger(__name__)


OLD_STATE = "run.json"
SUBMISSION = "submission.json"
"""Written when a prompt is submitted: what must not be lost of it, should another file be damaged."""
FINISHED = "finished"
NO_END = "it does not tell how the run ended: its last lines are lost"
CUT = "a prompt was submitted that the log of the run does not tell of: its last lines are lost"


def create_records(live: Path, runs: Sequence[Run], seal: RecordFormat) -> None:
    """All of them, on the disk when this returns, or none. A power cut before may leave some. Raises:
    OSError."""
    workflows = WorkflowWriter([run.request for run in runs], seal)
    made, written = list[Path](), [live]
    try:
        for run in runs:
            path = live / run.run_id
            path.mkdir(mode=0o700)
            made.append(path)
            written += [path, *_write_files(path, run, workflows, seal)]
        flush_to_disk(written)
    except OSError:
        for path in made:
            shutil.rmtree(path, ignore_errors=True)
        raise


def was_never_accepted(path: Path, seal: RecordFormat) -> bool:
    """Whether a server died, or the power failed, before it could answer for this run: then neither its
    request nor its first state is whole, and nothing else was ever written."""
    is_record = is_run_id(path.name) and path.is_dir() and not path.is_symlink()
    return is_record and not (
        _has_request(path, seal) or _has_state(path, seal) or _has_gone_on(path) or _is_old(path)
    )


def write_submission(path: Path, run: Run, seal: RecordFormat) -> None:
    """Write the submission of a run whose prompt is about to be submitted, after its log says so. It is read
    where the log is damaged, so it need not be on the disk first, and a disk that does not take it stops
    nobody."""
    try:
        write_atomically(path / SUBMISSION, seal.seal(encode_submission(run)), must_reach_disk=False)
    except OSError as error:
        log.warning("%s: its submission is not saved a second time: %s", run.run_id, error.strerror)


class RecordReader:
    """Reads records. What several runs have in common is one object in memory. Its methods may be called from
    any thread."""

    def __init__(self, seal: RecordFormat, most_workflows: int | None = None) -> None:
        self.seal = seal
        self.workflows = WorkflowReader(most_workflows, seal)
        self.nodes = NodeMemory()

    def read(self, path: Path) -> Run:
        """A run. Files that every record has are read last: a record that is just being moved lacks nothing.
        Raises: StoreError, NewerRecord, OSError."""
        request = self.seal.read(path / "request.json")
        workflow, graph = self.workflows.read(path), content_of(path / GRAPH)
        submission = read_submission(path, self.seal)
        run = self._decode(request, read_state(path, self.seal), graph, workflow)
        if run.run_id != path.name or not is_run_id(path.name):
            raise StoreError(f"it is the record of another run, {run.run_id!r}")
        if submission is not None and submission.submissions > run.submissions:
            raise StoreError(CUT)
        if path.parent.name == FINISHED and not run.is_finished:
            raise StoreError(NO_END)
        return run

    def _decode(self, request: bytes, log: bytes, graph: bytes | None, workflow: Workflow | None) -> Run:
        """A graph that was never submitted may be cut short, or made for an instance that the run has left:
        it is made anew. Raises: StoreError."""
        run = decode_run(request, log, workflow, self.nodes)
        if graph is None or (run.submissions == 0 and not run.is_finished):
            return run
        return replace(run, prepared_graph=decode_graph(self.seal.unseal(graph, Path(GRAPH))))


def read_submission(path: Path, seal: RecordFormat) -> SubmissionRecord | None:
    """None where no prompt was submitted, or an earlier release has submitted it; or where a power cut took
    the content, which was not flushed. Raises: StoreError, NewerRecord, OSError."""
    content = content_of(path / SUBMISSION)
    return decode_submission(seal.unseal(content, path / SUBMISSION)) if content else None


def read_inputs(path: Path, seal: RecordFormat) -> Mapping[str, Any]:
    """Raises: StoreError, OSError."""
    return decode_inputs(seal.read(path / "request.json"))


def read_outputs(path: Path, seal: RecordFormat) -> Sequence[OutputFile]:
    """Raises: StoreError, OSError."""
    return decode_outputs(read_state(path, seal))


def refuse_newer(path: Path, seal: RecordFormat) -> None:
    """Raises: NewerRecord. Whatever else may be wrong with the record is not told here."""
    with suppress(StoreError, OSError):
        seal.read(path / "request.json")
    with suppress(StoreError, OSError):
        read_state(path, seal)


def read_state(path: Path, seal: RecordFormat) -> bytes:
    """The log, or what older records have in its place. Raises: StoreError, NewerRecord, OSError."""
    read = whole_state(path, seal)
    if read.trouble is not None:
        raise StoreError(read.trouble)
    return read.content


def whole_state(path: Path, seal: RecordFormat) -> LogRead:
    """The whole part of the state. Raises: StoreError where there is none; NewerRecord; OSError."""
    content = content_of(path / LOG)
    read = None if content is None else read_log(content, path / LOG, seal)
    if read is not None and begins_with_state(read.content):
        return read
    if content is not None and not (path / OLD_STATE).exists():
        raise StoreError(f"there is no whole state in {LOG}")
    return LogRead(content=seal.read(path / OLD_STATE), trouble=None)


def _write_files(path: Path, run: Run, workflows: WorkflowWriter, seal: RecordFormat) -> list[Path]:
    workflow = workflows.write(path, run.request)
    write_new(path / "request.json", seal.seal(encode_request(run.request, has_workflow=workflow is None)))
    write_new(path / LOG, seal.seal(encode_run(run)) + b"\n")
    return [path / "request.json", path / LOG, *([workflow] if workflow else [])]


def _has_state(path: Path, seal: RecordFormat) -> bool:
    with suppress(OSError, StoreError):
        return bool(whole_state(path, seal).content)
    return False


def _has_request(path: Path, seal: RecordFormat) -> bool:
    with suppress(OSError, StoreError):
        decode_inputs(seal.read(path / "request.json"))
        return True
    return False


def _has_gone_on(path: Path) -> bool:
    """Whether there is more of it than a new record has."""
    with suppress(OSError):
        return not is_missing(path / SUBMISSION) or read_regular(path / LOG).count(b"\n") > 1
    return False


def _is_old(path: Path) -> bool:
    """A record of an earlier release, which was moved here as a whole."""
    return not is_missing(path / OLD_STATE)


def content_of(path: Path) -> bytes | None:
    """None for a file that was never needed. Raises: OSError."""
    try:
        return read_regular(path)
    except FileNotFoundError:
        return None


def is_missing(path: Path) -> bool:
    """Neither a file nor anything else is there."""
    return not os.path.lexists(path)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
