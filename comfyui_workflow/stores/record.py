"""The directory of one run: request.json, run.json, and graph.json once it was made of the request. The
workflow is in the request, or beside it in workflow.json where other runs have it, too."""

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
)
from comfyui_workflow.runs.model import Graph, OutputFile, Run, is_workflow_id
from comfyui_workflow.stores.atomic import bring_to_disk, read_regular, write_atomically, write_new
from comfyui_workflow.stores.workflow_file import WorkflowReader, WorkflowWriter

log = logging.getLogger(__name__)


def create_records(live: Path, runs: Sequence[Run]) -> None:
    """All of them, or none; on disk before the first is in its place, where the next start takes it up.
    Raises: OSError."""
    building = live / f".new-{runs[0].workflow_id}"
    workflows = WorkflowWriter([run.request for run in runs])
    placed: list[Path] = []
    try:
        building.mkdir(mode=0o700)
        bring_to_disk([path for run in runs for path in _create(building / run.workflow_id, run, workflows)])
        for run in runs:
            (building / run.workflow_id).rename(live / run.workflow_id)
            placed.append(live / run.workflow_id)
        building.rmdir()
        bring_to_disk([live])
    except OSError:
        for path in (building, *placed):
            shutil.rmtree(path, ignore_errors=True)
        raise


def write_run(path: Path, run: Run, *, must_reach_disk: bool) -> None:
    """Raises: StoreError."""
    try:
        write_atomically(path / "run.json", encode_run(run), must_reach_disk=must_reach_disk)
    except OSError as error:
        raise cannot_save(error) from error


def write_graph(path: Path, graph: Graph | None) -> None:
    """Before the run that depends on it. One that was given up is made anew. Raises: StoreError."""
    try:
        if graph is None:
            (path / "graph.json").unlink(missing_ok=True)
        else:
            write_atomically(path / "graph.json", encode_graph(graph), must_reach_disk=True)
    except OSError as error:
        raise cannot_save(error) from error


class RecordReader:
    """What its runs have in common is one object in memory. Its methods may be called from any thread."""

    def __init__(self, most_workflows: int | None = None) -> None:
        self._workflows = WorkflowReader(most_workflows)
        self._nodes = NodeMemory()

    def read(self, path: Path) -> Run:
        """What every record has is read last: then nothing was missing because the record was just moved.
        Raises: StoreError, OSError."""
        request = read_regular(path / "request.json")
        workflow, graph = self._workflows.read(path), _content(path / "graph.json")
        run = decode_run(request, read_regular(path / "run.json"), graph, workflow, self._nodes)
        if run.workflow_id != path.name or not is_workflow_id(path.name):
            raise StoreError(f"it is the record of another run, {run.workflow_id!r}")
        return run


def read_inputs(path: Path) -> Mapping[str, Any]:
    """Raises: StoreError, OSError."""
    return decode_inputs(read_regular(path / "request.json"))


def read_outputs(path: Path) -> Sequence[OutputFile]:
    """Raises: StoreError, OSError."""
    return decode_outputs(read_regular(path / "run.json"))


def _create(path: Path, run: Run, workflows: WorkflowWriter) -> list[Path]:
    """Its files."""
    path.mkdir(mode=0o700)
    workflow = workflows.place(path, run.request)
    write_new(path / "request.json", encode_request(run.request, has_workflow=workflow is None))
    write_new(path / "run.json", encode_run(run))
    return [path / "request.json", path / "run.json", *([workflow] if workflow else [])]


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


def cannot_save(error: OSError) -> StoreError:
    where = f" ({error.filename})" if error.filename else ""
    return StoreError(f"The run cannot be saved: {os.strerror(error.errno or 0)}{where}")
