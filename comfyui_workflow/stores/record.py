"""The directory of one run: request.json, run.json, and graph.json once it was made of the request."""

import logging
import os
import shutil
import time
from pathlib import Path

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.codec import decode_run, encode_graph, encode_request, encode_run
from comfyui_workflow.runs.model import Graph, Run, is_workflow_id
from comfyui_workflow.stores.atomic import write_atomically, write_new

log = logging.getLogger(__name__)


def create_record(path: Path, run: Run) -> list[Path]:
    """Where nobody looks yet; its files, to be brought to the disk. Raises: OSError."""
    path.mkdir(mode=0o700)
    write_new(path / "request.json", encode_request(run.request))
    write_new(path / "run.json", encode_run(run))
    return [path / "request.json", path / "run.json"]


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


def read_record(path: Path) -> Run:
    """Raises: StoreError, OSError."""
    run = decode_run(
        (path / "request.json").read_bytes(), (path / "run.json").read_bytes(), _content(path / "graph.json")
    )
    if run.workflow_id != path.name or not is_workflow_id(path.name):
        raise StoreError(f"it is the record of another run, {run.workflow_id!r}")
    return run


def _content(path: Path) -> bytes | None:
    """None for a file that was never needed."""
    try:
        return path.read_bytes()
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
