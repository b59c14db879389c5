"""The directory of one run: request.json, run.jsonl (the log of its changes), and graph.json after the graph
was made from the request. The workflow is in the request or, if several runs share it, in workflow.json.
Older records have the state in run.json, without a log.

How it works: files are added and lines are appended. Only a log that has become long is ever replaced. So a
power cut can only lose data that was not flushed yet.
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
from comfyui_workflow.runs.model import OutputFile, Run, RunRequest, is_run_id
from comfyui_workflow.stores.files.record_format import RecordFormat
from comfyui_workflow.stores.files.run_log import GRAPH, LOG, LogRead, read_log
from comfyui_workflow.stores.files.workflow_file import WorkflowReader, WorkflowWriter
from comfyui_workflow.workflows.model import Workflow

log = logging.getLogger(__name__)


OLD_STATE = "run.json"
SUBMISSION = "submission.json"
"""Written when a prompt is submitted: the data that must survive if another file is damaged."""
FINISHED = "finished"
NO_END = "the end of the run is missing: its last lines are lost"
CUT = "the log of the run lacks a prompt that was submitted: its last lines are lost"


def create_records(live: Path, runs: Sequence[Run], seal: RecordFormat) -> None:
    """Writes the records of new runs: all, on disk when this returns, or none. A power cut before it returns
    may leave some. Raises: OSError."""
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
    """True if the server crashed, or the power failed, before it accepted this run: then neither the request
    nor the first state is complete, and nothing else was written."""
    is_record = is_run_id(path.name) and path.is_dir() and not path.is_symlink()
    return is_record and not (
        _has_request(path, seal) or _has_state(path, seal) or _has_later_changes(path) or _is_old(path)
    )


def write_submission(path: Path, run: Run, seal: RecordFormat) -> None:
    """Writes the submission of a run whose prompt will be submitted now. The log already has it: this copy is
    read only if the log is damaged. So it is not flushed, and an error is only logged."""
    try:
        write_atomically(path / SUBMISSION, seal.seal(encode_submission(run)), must_reach_disk=False)
    except OSError as error:
        log.warning("%s: its submission is not saved a second time: %s", run.run_id, error.strerror)


class RecordReader:
    """Reads records. Data that several runs share is one object in memory. Thread-safe."""

    def __init__(self, seal: RecordFormat, most_workflows: int | None = None) -> None:
        self.seal = seal
        self.workflows = WorkflowReader(most_workflows, seal)
        self.nodes = NodeMemory()

    def read(self, path: Path) -> Run:
        """Reads a run. Files that every record has are read last: if the directory is moved meanwhile, the
        error is a missing file and not a record without its optional files.
        Raises: StoreError, NewerRecord, OSError."""
        request = self.seal.read(path / "request.json")
        workflow, graph = self.workflows.read(path), read_optional(path / GRAPH)
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
        """Decodes a run. Ignores a graph that was never submitted: it may be incomplete, or made for an
        instance that the run has left. It is made again later; that of a run with parts is complete when they
        are done. Raises: StoreError."""
        run = decode_run(request, log, workflow, self.nodes)
        is_needed = run.submissions > 0 or run.is_finished or run.are_parts_done
        if graph is None or not is_needed:
            return run
        return replace(run, prepared_graph=decode_graph(self.seal.unseal(graph, Path(GRAPH))))


def read_submission(path: Path, seal: RecordFormat) -> SubmissionRecord | None:
    """Reads submission.json. Returns None if no prompt was submitted, an earlier release has submitted it, or
    the file is empty after a power cut (it is not flushed). Raises: StoreError, NewerRecord, OSError."""
    content = read_optional(path / SUBMISSION)
    return decode_submission(seal.unseal(content, path / SUBMISSION)) if content else None


def read_inputs(path: Path, seal: RecordFormat) -> Mapping[str, Any]:
    """Raises: StoreError, OSError."""
    return decode_inputs(seal.read(path / "request.json"))


def read_outputs(path: Path, seal: RecordFormat) -> Sequence[OutputFile]:
    """Raises: StoreError, OSError."""
    return decode_outputs(read_state(path, seal))


def refuse_newer(path: Path, seal: RecordFormat) -> None:
    """Raises: NewerRecord. Ignores all other errors of the record."""
    with suppress(StoreError, OSError):
        seal.read(path / "request.json")
    with suppress(StoreError, OSError):
        read_state(path, seal)


def read_state(path: Path, seal: RecordFormat) -> bytes:
    """Reads the log, or the state file of an older record. Raises: StoreError, NewerRecord, OSError."""
    read = whole_state(path, seal)
    if read.trouble is not None:
        raise StoreError(read.trouble)
    return read.content


def whole_state(path: Path, seal: RecordFormat) -> LogRead:
    """Reads the undamaged part of the state. Raises: StoreError if there is none; NewerRecord; OSError."""
    content = read_optional(path / LOG)
    read = None if content is None else read_log(content, path / LOG, seal)
    if read is not None and begins_with_state(read.content):
        return read
    if content is not None and not (path / OLD_STATE).exists():
        raise StoreError(f"there is no whole state in {LOG}")
    return LogRead(content=seal.read(path / OLD_STATE), trouble=None)


def _write_files(path: Path, run: Run, workflows: WorkflowWriter, seal: RecordFormat) -> list[Path]:
    workflow = workflows.write(path, run.request)
    record = encode_request(run.request, has_workflow=workflow is None)
    write_new(path / "request.json", seal.seal(record, version_of(run.request)))
    write_new(path / LOG, seal.seal(encode_run(run)) + b"\n")
    return [path / "request.json", path / LOG, *([workflow] if workflow else [])]


def version_of(request: RunRequest) -> int:
    """Returns the version of the request's record. An older release would execute a run with parts itself."""
    return 1 if request.parts is None and request.part is None else 2


def _has_state(path: Path, seal: RecordFormat) -> bool:
    with suppress(OSError, StoreError):
        return bool(whole_state(path, seal).content)
    return False


def _has_request(path: Path, seal: RecordFormat) -> bool:
    with suppress(OSError, StoreError):
        decode_inputs(seal.read(path / "request.json"))
        return True
    return False


def _has_later_changes(path: Path) -> bool:
    """True if the record has more than the files and lines of a new record."""
    with suppress(OSError):
        return not is_missing(path / SUBMISSION) or read_regular(path / LOG).count(b"\n") > 1
    return False


def _is_old(path: Path) -> bool:
    """True for a record of an earlier release, which was moved here as one unit."""
    return not is_missing(path / OLD_STATE)


def read_optional(path: Path) -> bytes | None:
    """Returns the content of an optional file, None if it does not exist. Raises: OSError."""
    try:
        return read_regular(path)
    except FileNotFoundError:
        return None


def is_missing(path: Path) -> bool:
    """True if nothing is at the path, not even a dangling symlink."""
    return not os.path.lexists(path)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
