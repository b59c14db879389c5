"""The directory of one run: request.json, run.json, and graph.json once it was made of the request. The
workflow is in the request, or beside it in workflow.json where other runs have it, too."""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.codec import (
    NodeMemory,
    decode_inputs,
    decode_outputs,
    decode_run,
    encode_graph,
    encode_request,
    encode_run,
    encode_submission,
)
from comfyui_workflow.runs.model import Graph, OutputFile, Run, is_workflow_id
from comfyui_workflow.stores.atomic import bring_to_disk, read_regular, write_atomically, write_new
from comfyui_workflow.stores.sealing import Seal
from comfyui_workflow.stores.workflow_file import WorkflowReader, WorkflowWriter

log = logging.getLogger(__name__)

SUBMISSION = "submission.json"
"""Written when a prompt is submitted: what must not be lost of it, should another file be damaged."""


def create_records(live: Path, runs: Sequence[Run], seal: Seal) -> None:
    """All of them, or none; on disk before the first is in its place, where the next start takes it up.
    Raises: OSError."""
    building = live / f".new-{runs[0].workflow_id}"
    workflows = WorkflowWriter([run.request for run in runs], seal)
    placed: list[Path] = []
    try:
        building.mkdir(mode=0o700)
        bring_to_disk(
            [path for run in runs for path in _create(building / run.workflow_id, run, workflows, seal)]
        )
        for run in runs:
            (building / run.workflow_id).rename(live / run.workflow_id)
            placed.append(live / run.workflow_id)
        building.rmdir()
        bring_to_disk([live])
    except OSError:
        for path in (building, *placed):
            shutil.rmtree(path, ignore_errors=True)
        raise


def write_run(path: Path, run: Run, seal: Seal, *, must_reach_disk: bool) -> None:
    """Raises: StoreError."""
    try:
        write_atomically(path / "run.json", seal.seal(encode_run(run)), must_reach_disk=must_reach_disk)
    except OSError as error:
        raise cannot_save(error) from error


def write_graph(path: Path, graph: Graph | None, seal: Seal) -> None:
    """Before the run that depends on it. One that was given up is made anew. Raises: StoreError."""
    try:
        if graph is None:
            (path / "graph.json").unlink(missing_ok=True)
        else:
            write_atomically(path / "graph.json", seal.seal(encode_graph(graph)), must_reach_disk=True)
    except OSError as error:
        raise cannot_save(error) from error


def write_submission(path: Path, run: Run, seal: Seal) -> None:
    """Of a run whose prompt is about to be submitted. It is read only where `run.json` is damaged, so it need
    not be on disk first. Raises: StoreError."""
    try:
        write_atomically(path / SUBMISSION, seal.seal(encode_submission(run)))
    except OSError as error:
        raise cannot_save(error) from error


class RecordReader:
    """What its runs have in common is one object in memory. Its methods may be called from any thread."""

    def __init__(self, seal: Seal, most_workflows: int | None = None) -> None:
        self.seal = seal
        self.workflows = WorkflowReader(most_workflows, seal)
        self.nodes = NodeMemory()

    def read(self, path: Path) -> Run:
        """What every record has is read last: then nothing was missing because the record was just moved.
        Raises: StoreError, OSError."""
        request = read_sealed(path / "request.json", self.seal)
        workflow, graph = self.workflows.read(path), content_of(path / "graph.json", self.seal)
        state = read_sealed(path / "run.json", self.seal)
        run = decode_run(request, state, graph, workflow, self.nodes)
        if run.workflow_id != path.name or not is_workflow_id(path.name):
            raise StoreError(f"it is the record of another run, {run.workflow_id!r}")
        return run


def read_inputs(path: Path, seal: Seal) -> Mapping[str, Any]:
    """Raises: StoreError, OSError."""
    return decode_inputs(read_sealed(path / "request.json", seal))


def read_outputs(path: Path, seal: Seal) -> Sequence[OutputFile]:
    """Raises: StoreError, OSError."""
    return decode_outputs(read_sealed(path / "run.json", seal))


def read_sealed(path: Path, seal: Seal) -> bytes:
    """Raises: StoreError when it is damaged; NewerRecord; OSError."""
    return seal.unseal(read_regular(path), path)


def refuse_newer(path: Path, seal: Seal) -> None:
    """Raises: NewerRecord. Whatever else may be wrong with the record is not told here."""
    for name in ("request.json", "run.json"):
        with contextlib.suppress(StoreError, OSError):
            read_sealed(path / name, seal)


def _create(path: Path, run: Run, workflows: WorkflowWriter, seal: Seal) -> list[Path]:
    """Its files."""
    path.mkdir(mode=0o700)
    workflow = workflows.place(path, run.request)
    write_new(path / "request.json", seal.seal(encode_request(run.request, has_workflow=workflow is None)))
    write_new(path / "run.json", seal.seal(encode_run(run)))
    return [path / "request.json", path / "run.json", *([workflow] if workflow else [])]


def content_of(path: Path, seal: Seal) -> bytes | None:
    """None for a file that was never needed. Raises: StoreError, NewerRecord, OSError."""
    try:
        return read_sealed(path, seal)
    except FileNotFoundError:
        return None


def is_missing(path: Path) -> bool:
    """Neither a file nor anything else is there."""
    return not os.path.lexists(path)


def set_aside(path: Path, directory: Path, reason: str, name: str | None = None) -> None:
    """For a person to look at. What cannot be moved stays where it is."""
    aside = directory / f"{(name or path.name)[:120]}-{time.time_ns()}"
    log.error("Set aside %r as %r: %s", str(path), str(aside), reason)
    try:
        shutil.move(path, aside)
    except OSError as error:
        log.error("%r stays where it is: %s", str(path), error.strerror)


def keep_aside(path: Path, directory: Path, reason: str, name: str) -> None:
    """As `set_aside`, but the file stays in its place, too, until another one replaces it: needs no room."""
    aside = directory / f"{name[:120]}-{time.time_ns()}"
    try:
        os.link(path, aside, follow_symlinks=False)
    except OSError:  # a directory, or a file system without links
        set_aside(path, directory, reason, name)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def cannot_save(error: OSError) -> StoreError:
    where = f" ({error.filename})" if error.filename else ""
    return StoreError(f"The run cannot be saved: {os.strerror(error.errno or 0)}{where}")
