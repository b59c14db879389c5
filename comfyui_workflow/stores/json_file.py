"""Runs as JSON files: a directory for each run, and the state file that mirrors the latest one.

    DATA_DIR/runs/live/<workflow_id>/request.json, run.json, and graph.json once it was made of the request
    DATA_DIR/runs/finished/<workflow_id>/...
    DATA_DIR/runs/set-aside/...             what could not be read, kept for a person to look at

Live runs are held in memory and written at each step; finished ones are read when somebody asks, so
neither a step nor the start gets slower with the number of finished runs.
"""

import json
import logging
import os
import shutil
import threading
import time
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from comfyui_workflow.errors import ConfigurationError, InvalidGraph, RunNotFound, StoreError
from comfyui_workflow.runs.codec import decode_run, encode_graph, encode_request, encode_run
from comfyui_workflow.runs.document import progress_document
from comfyui_workflow.runs.events import Saving
from comfyui_workflow.runs.model import Run, is_workflow_id
from comfyui_workflow.stores import Change
from comfyui_workflow.stores.atomic import make_private_directory, write_atomically
from comfyui_workflow.workflows.graph import check_graph

log = logging.getLogger(__name__)

TICK_S = 1.0
_STRIPES = 64


@dataclass
class _Live:
    run: Run
    saved_at_s: float


class JsonFileStore:
    """Opening it takes the data directory for this process; a second server is refused."""

    def __init__(
        self, data_dir: Path, state_file: Path | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._root = data_dir / "runs"
        self._state_file = state_file
        self._clock = clock
        self._lock_file = FileLock(data_dir / "server.lock", timeout=0, mode=0o600)
        self._live: dict[str, _Live] = {}
        self._finished: list[str] = []
        self._index = threading.Lock()
        self._run_locks = [threading.Lock() for _ in range(_STRIPES)]
        self._state_lock = threading.Lock()
        self._state_trouble: str | None = None

    def open(self) -> None:
        """Raises: ConfigurationError when the directory is in use or cannot be used."""
        try:
            make_private_directory(self._root.parent)
            for name in ("live", "finished", "set-aside"):
                make_private_directory(self._root / name)
            self._lock_file.acquire()
            self._load()
        except Timeout as error:
            raise ConfigurationError(
                f"Another server is running on the data directory {self._root.parent}. "
                "Stop it first, or give this one a directory of its own with COMFYUI_WORKFLOW_DATA_DIR"
            ) from error
        except OSError as error:
            raise ConfigurationError(
                f"The data directory {self._root.parent} cannot be used: {error.strerror}"
            ) from error

    def close(self) -> None:
        for entry in list(self._live.values()):
            self._try_save(entry, entry.run, Saving.STEP)
        self._lock_file.release()

    def add(self, run: Run) -> None:
        building = self._root / "live" / f".new-{run.workflow_id}"
        try:
            building.mkdir(mode=0o700)
            write_atomically(building / "request.json", encode_request(run.request), must_reach_disk=True)
            write_atomically(building / "run.json", encode_run(run), must_reach_disk=True)
            building.rename(self._live_path(run.workflow_id))
        except OSError as error:
            shutil.rmtree(building, ignore_errors=True)
            raise _cannot_save(error) from error
        with self._index:
            self._live[run.workflow_id] = _Live(run=run, saved_at_s=self._clock())
        self._mirror(run)

    def get(self, workflow_id: str) -> Run | None:
        with self._index:
            entry = self._live.get(workflow_id)
        return entry.run if entry else self._read_finished(workflow_id)

    def update(self, workflow_id: str, change: Change, saving: Saving = Saving.STEP) -> Run:
        with self._run_locks[hash(workflow_id) % _STRIPES]:
            entry = self._live.get(workflow_id) or self._finished_entry(workflow_id)
            changed = change(entry.run)
            if changed is entry.run:
                return changed
            if workflow_id not in self._live:
                self._move_to_live(workflow_id, entry)
            is_saved = self._save(entry, changed, saving)
            if changed.is_finished:
                self._move_to_finished(workflow_id)
        if is_saved:
            self._mirror(changed)
        return changed

    def latest(self) -> Run | None:
        return next(iter(self.page(1)), None)

    def unfinished(self) -> list[Run]:
        with self._index:
            return [self._live[workflow_id].run for workflow_id in sorted(self._live)]

    def page(self, limit: int, before: str | None = None) -> list[Run]:
        found: list[Run] = []
        while len(found) < limit and (ids := self._ids(limit - len(found), before)):
            found.extend(run for run in map(self.get, ids) if run is not None)
            before = ids[-1]
        return found

    def count(self) -> int:
        with self._index:
            return len(self._live) + len(self._finished)

    def _ids(self, limit: int, before: str | None) -> list[str]:
        """Newest first; a record that is called so may turn out not to be readable."""
        with self._index:
            end = len(self._finished) if before is None else bisect_left(self._finished, before)
            live = [workflow_id for workflow_id in self._live if before is None or workflow_id < before]
            return sorted({*self._finished[max(0, end - limit) : end], *live}, reverse=True)[:limit]

    def _load(self) -> None:
        for path in sorted((self._root / "live").iterdir()):
            if path.name.startswith(".new-"):
                _remove(path)  # a server died before it answered for this run
            else:
                self._load_live(path)
        self._finished = sorted(
            path.name for path in (self._root / "finished").iterdir() if is_workflow_id(path.name)
        )
        self._check_state_file()

    def _load_live(self, path: Path) -> None:
        try:
            run = _read(path)
            if run.graph or run.request.editor_file is None:
                check_graph(run.graph)
        except (StoreError, InvalidGraph, OSError) as error:
            self._set_aside(path, str(error))
            return
        self._live[run.workflow_id] = _Live(run=run, saved_at_s=self._clock())
        if run.is_finished:
            self._move_to_finished(run.workflow_id)

    def _set_aside(self, path: Path, reason: str) -> None:
        aside = self._root / "set-aside" / f"{path.name[:50]}-{time.time_ns()}"
        log.error("Set aside %r as %r: %s", str(path), str(aside), reason)
        try:
            shutil.move(path, aside)
        except OSError as error:
            log.error("%r stays where it is: %s", str(path), error.strerror)

    def _check_state_file(self) -> None:
        """A state file that is not ours, or half of one, is kept beside the new one, not overwritten."""
        if self._state_file is None or not self._state_file.is_file() or self._state_file.is_symlink():
            return
        try:
            content = json.loads(self._state_file.read_bytes() or b"null")
            if content is None or (isinstance(content, dict) and "workflow_id" in content):
                return
            reason = "it is not the state of a workflow"
        except (OSError, ValueError, RecursionError) as error:
            reason = str(error)
        self._set_aside(self._state_file, reason)

    def _live_path(self, workflow_id: str) -> Path:
        return self._root / "live" / workflow_id

    def _finished_entry(self, workflow_id: str) -> _Live:
        run = self._read_finished(workflow_id)
        if run is None:
            raise RunNotFound(f"Workflow not found: {workflow_id}")
        return _Live(run=run, saved_at_s=self._clock())

    def _read_finished(self, workflow_id: str) -> Run | None:
        if not is_workflow_id(workflow_id):
            return None
        try:
            return _read(self._root / "finished" / workflow_id)
        except FileNotFoundError:
            entry = self._live.get(workflow_id)  # it may have been taken up again just now
            return entry.run if entry else None
        except (StoreError, OSError) as error:
            log.error("The record of %s cannot be read: %s", workflow_id, error)
            return None

    def _save(self, entry: _Live, changed: Run, saving: Saving) -> bool:
        """Whether it was time to write."""
        if saving is Saving.TICK and self._clock() - entry.saved_at_s < TICK_S:
            entry.run = changed
            return False
        if saving in (Saving.MUST, Saving.SYNCED):
            if changed.prepared_graph is not entry.run.prepared_graph:
                self._write_graph(changed)
            self._write(changed, must_reach_disk=saving is Saving.SYNCED)
        else:
            self._try_save(entry, changed, saving)
        entry.run, entry.saved_at_s = changed, self._clock()
        return True

    def _try_save(self, entry: _Live, changed: Run, saving: Saving) -> None:
        try:
            self._write(changed, must_reach_disk=False)
        except StoreError as error:
            log.warning(
                "%s: %s; kept in memory until the next step (%s)", changed.workflow_id, error, saving.name
            )

    def _write(self, run: Run, *, must_reach_disk: bool) -> None:
        path = self._live_path(run.workflow_id) / "run.json"
        try:
            write_atomically(path, encode_run(run), must_reach_disk=must_reach_disk)
        except OSError as error:
            raise _cannot_save(error) from error

    def _write_graph(self, run: Run) -> None:
        """Before the record that depends on it. One that was given up is made anew."""
        path = self._live_path(run.workflow_id) / "graph.json"
        try:
            if run.prepared_graph is None:
                path.unlink(missing_ok=True)
            else:
                write_atomically(path, encode_graph(run.prepared_graph), must_reach_disk=True)
        except OSError as error:
            raise _cannot_save(error) from error

    def _move_to_live(self, workflow_id: str, entry: _Live) -> None:
        try:
            (self._root / "finished" / workflow_id).rename(self._live_path(workflow_id))
        except OSError as error:
            raise _cannot_save(error) from error
        with self._index:
            self._live[workflow_id] = entry
            self._finished.remove(workflow_id)

    def _move_to_finished(self, workflow_id: str) -> None:
        """Should the move fail, the record says that the run is finished, and the next start moves it."""
        try:
            self._live_path(workflow_id).rename(self._root / "finished" / workflow_id)
        except OSError as error:
            log.warning("%s stays among the live runs: %s", workflow_id, error)
            return
        with self._index:
            insort(self._finished, workflow_id)
            del self._live[workflow_id]

    def _mirror(self, run: Run) -> None:
        """The state file holds what `/state` answers: the latest run."""
        if self._state_file is None:
            return
        with self._state_lock:
            latest = self._latest_id()
            if latest != run.workflow_id:
                return
            current = self.get(latest) or run
            self._write_state(self._state_file, json.dumps(progress_document(current)).encode())

    def _latest_id(self) -> str | None:
        with self._index:
            return max([*self._finished[-1:], *self._live], default=None)

    def _write_state(self, state_file: Path, content: bytes) -> None:
        try:
            write_atomically(state_file, content)
            self._state_trouble = None
        except OSError as error:
            if self._state_trouble != str(error):
                log.warning("The state file %s cannot be written: %s", state_file, error.strerror)
            self._state_trouble = str(error)


def _read(path: Path) -> Run:
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


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _cannot_save(error: OSError) -> StoreError:
    where = f" ({error.filename})" if error.filename else ""
    return StoreError(f"The run cannot be saved: {os.strerror(error.errno or 0)}{where}")
