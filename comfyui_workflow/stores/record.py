"""The directory of one run: request.json, run.jsonl (the log of its changes), and graph.json once it was made
of the request. The workflow is in the request, or beside it in workflow.json where other runs have it, too.
Older records have the state in run.json, without a log.

Files are added and lines appended; the only file that is ever replaced is a log that has grown long. So a
power cut can take what was not flushed yet, and nothing else.
"""

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.changes import is_state
from comfyui_workflow.runs.codec import (
    NodeMemory,
    decode_graph,
    decode_inputs,
    decode_outputs,
    decode_run,
    encode_request,
    encode_run,
)
from comfyui_workflow.runs.model import OutputFile, Run, Workflow, is_workflow_id
from comfyui_workflow.stores.atomic import read_regular, write_new
from comfyui_workflow.stores.flush import flush_to_disk
from comfyui_workflow.stores.run_log import GRAPH, LOG
from comfyui_workflow.stores.workflow_file import WorkflowReader, WorkflowWriter

log = logging.getLogger(__name__)


_OLD_STATE = "run.json"


def create_records(live: Path, runs: Sequence[Run]) -> None:
    """All of them, on the disk when this returns, or none. A power cut before may leave some. Raises:
    OSError."""
    workflows = WorkflowWriter([run.request for run in runs])
    made, written = list[Path](), [live]
    try:
        for run in runs:
            path = live / run.workflow_id
            path.mkdir(mode=0o700)
            made.append(path)
            written += [path, *_write_files(path, run, workflows)]
        flush_to_disk(written)
    except OSError:
        for path in made:
            shutil.rmtree(path, ignore_errors=True)
        raise


def was_never_accepted(path: Path) -> bool:
    """Whether a server died, or the power failed, before it could answer for this run: then neither its
    request nor its first state is whole."""
    is_record = is_workflow_id(path.name) and path.is_dir() and not path.is_symlink()
    return is_record and not (_has_state(path) or _has_request(path))


class RecordReader:
    """What its runs have in common is one object in memory. Its methods may be called from any thread."""

    def __init__(self, most_workflows: int | None = None) -> None:
        self._workflows = WorkflowReader(most_workflows)
        self._nodes = NodeMemory()

    def read(self, path: Path) -> Run:
        """What every record has is read last: then nothing was missing because the record was just moved.
        Raises: StoreError, OSError."""
        request = read_regular(path / "request.json")
        workflow, graph = self._workflows.read(path), _content(path / GRAPH)
        run = self._decode(request, _state(path), graph, workflow)
        if run.workflow_id != path.name or not is_workflow_id(path.name):
            raise StoreError(f"it is the record of another run, {run.workflow_id!r}")
        return run

    def _decode(self, request: bytes, log: bytes, graph: bytes | None, workflow: Workflow | None) -> Run:
        """A graph that was never submitted may be cut short, or made for an instance that the run has left:
        it is made anew. Raises: StoreError."""
        run = decode_run(request, log, workflow, self._nodes)
        if graph is None or (run.submissions == 0 and not run.is_finished):
            return run
        return replace(run, prepared_graph=decode_graph(graph))


def read_inputs(path: Path) -> Mapping[str, Any]:
    """Raises: StoreError, OSError."""
    return decode_inputs(read_regular(path / "request.json"))


def read_outputs(path: Path) -> Sequence[OutputFile]:
    """Raises: StoreError, OSError."""
    return decode_outputs(_state(path))


def _write_files(path: Path, run: Run, workflows: WorkflowWriter) -> list[Path]:
    workflow = workflows.place(path, run.request)
    write_new(path / "request.json", encode_request(run.request, has_workflow=workflow is None))
    write_new(path / LOG, encode_run(run) + b"\n")
    return [path / "request.json", path / LOG, *([workflow] if workflow else [])]


def _has_state(path: Path) -> bool:
    with suppress(OSError):
        return any(map(is_state, _state(path).splitlines()))
    return False


def _has_request(path: Path) -> bool:
    with suppress(OSError, StoreError):
        decode_inputs(read_regular(path / "request.json"))
        return True
    return False


def _state(path: Path) -> bytes:
    """The log, or what older records have in its place. Raises: OSError."""
    log = _content(path / LOG)
    if log is None or not any(map(is_state, log.splitlines())):
        return read_regular(path / _OLD_STATE)
    return log


def _content(path: Path) -> bytes | None:
    """None for a file that was never needed."""
    try:
        return read_regular(path)
    except FileNotFoundError:
        return None


def set_aside(path: Path, directory: Path, reason: str) -> None:
    """For a person to look at. What cannot be moved stays where it is."""
    aside = directory / f"{path.name[:50]}-{time.time_ns()}"
    log.error("Set aside %r as %r: %s", str(path), str(aside), reason)
    try:
        shutil.move(path, aside)
    except OSError as error:
        log.error("%r stays where it is: %s", str(path), error.strerror)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
