"""Runs as JSON files: a directory for each run, and a state file with a copy of the latest run.

    DATA_DIR/runs/live/<run_id>/request.json, run.jsonl, and graph.json after it was made from the request;
                                            workflow.json: hard links if runs were added together
    DATA_DIR/runs/finished/<run_id>/...
    DATA_DIR/runs/finished.jsonl            summaries of the finished runs
    DATA_DIR/runs/set-aside/...             quarantine: unreadable files, for a person to inspect

How it works: live runs are in memory and are written at each step. Of finished runs only the index is in
memory; everything else is read on demand. So a step does not get slower with the number of runs, and the
start reads one file.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from comfyui_workflow.errors import (
    ConfigurationError,
    DataTaken,
    InvalidGraph,
    RunNotFound,
    StoreError,
)
from comfyui_workflow.files.atomic_write import make_private_directory
from comfyui_workflow.files.disk_flush import flush_to_disk
from comfyui_workflow.runs.events import Durability
from comfyui_workflow.runs.model import OutputFile, Run, is_run_id
from comfyui_workflow.runs.summary import EVERY_RUN, RunSummary, summary_of
from comfyui_workflow.stores.base import BillableRun, Change, DurationSample, Wanted
from comfyui_workflow.stores.damage import DamageReport
from comfyui_workflow.stores.files.ownership import Ownership
from comfyui_workflow.stores.files.quarantine import QUARANTINE, move_to_quarantine
from comfyui_workflow.stores.files.record_format import RecordFormat
from comfyui_workflow.stores.files.record_recovery import RecordRecovery
from comfyui_workflow.stores.files.run_directory import (
    RecordReader,
    create_records,
    read_inputs,
    read_outputs,
    refuse_newer,
    remove,
    was_never_accepted,
    write_submission,
)
from comfyui_workflow.stores.files.run_log import RunLog, cannot_save
from comfyui_workflow.stores.files.state_file import StateFile
from comfyui_workflow.stores.files.summary_log import Lines, SummaryLine, SummaryLog
from comfyui_workflow.stores.index import KeptRun, RunIndex
from comfyui_workflow.stores.summary_keys import keys_of
from comfyui_workflow.workflows.graph import Graph, check_graph

log = logging.getLogger(__name__)

T = TypeVar("T")

TICK_S = 1.0
_STRIPES = 64
_CHECKED_FOR_VERSION = 200
"""Number of the newest finished runs that are checked at the start: if a newer release has used the data, it
has probably finished some of them."""
_MOST_WORKFLOWS = 8
"""Cached workflows of finished runs: reading a batch of ten thousand runs reads one workflow."""


@dataclass(kw_only=True)
class _Live(KeptRun):
    log: RunLog
    saved_at_s: float
    is_saved: bool = True


class FileRunStore:
    """See the module. `open` locks the data directory for this process; a second server is refused."""

    def __init__(
        self,
        data_dir: Path,
        state_file: Path | None,
        clock: Callable[[], float] = time.monotonic,
        damage: DamageReport | None = None,
    ) -> None:
        self._root = data_dir / "runs"
        self._quarantine = self._root / QUARANTINE
        self._state_file = None if state_file is None else StateFile(state_file)
        self._clock = clock
        self._lock_file = FileLock(data_dir / "server.lock", timeout=0, mode=0o600)
        self.ownership = Ownership(data_dir, data_dir / "server.lock")
        self._live: dict[str, _Live] = {}
        self.damage = damage or DamageReport()
        self._seal = RecordFormat(data_dir)
        self._index = RunIndex(self._summary)
        self._finished_records = RecordReader(self._seal, _MOST_WORKFLOWS)
        self._rebuilder = RecordRecovery(
            RecordReader(self._seal, _MOST_WORKFLOWS), self._quarantine, self.damage
        )
        self._rebuilding = threading.Lock()
        self._summary_log = SummaryLog(self._root / "finished.jsonl", self._seal)
        self._live_lock = threading.Lock()
        self._run_locks = [threading.Lock() for _ in range(_STRIPES)]
        self._state_lock = threading.Lock()

    def open(self) -> None:
        """Raises: ConfigurationError if the directory is in use or cannot be used."""
        try:
            make_private_directory(self._root.parent)
            for name in ("live", "finished", QUARANTINE):
                make_private_directory(self._root / name)
            self._lock_file.acquire()
            with self._released_on_error():
                self.ownership.take()
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

    @contextlib.contextmanager
    def _released_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._lock_file.release()
            raise

    def close(self) -> None:
        """Saves unsaved changes, unless another server owns the data now."""
        with suppress(DataTaken, StoreError):
            self.ownership.check()
            for entry in [entry for entry in self._live.values() if not entry.is_saved]:
                self._try_save(entry, entry.run, Durability.STEP)
        self.ownership.leave()
        self._summary_log.close()
        if self._state_file is not None:
            self._state_file.close()
        self._lock_file.release()

    def add(self, run: Run) -> None:
        self.add_all([run])

    def add_all(self, runs: Sequence[Run]) -> None:
        if not runs:
            return
        self.ownership.check()
        try:
            create_records(self._root / "live", runs, self._seal)
        except OSError as error:
            raise cannot_save(error) from error
        for run in runs:
            self._add_live(self._live_entry(run, is_new=True))
        listed = [run for run in runs if run.request.parent_id is None]
        if listed:
            self._update_state_file(max(listed, key=lambda run: run.run_id))

    def get(self, run_id: str) -> Run | None:
        return self._read(run_id, lambda run: run, self._finished_records.read)

    def inputs(self, run_id: str) -> Mapping[str, Any] | None:
        return self._read(run_id, lambda run: run.request.inputs, lambda path: read_inputs(path, self._seal))

    def outputs(self, run_id: str) -> Sequence[OutputFile] | None:
        return self._read(run_id, lambda run: run.outputs, lambda path: read_outputs(path, self._seal))

    def update(self, run_id: str, change: Change, saving: Durability = Durability.STEP) -> Run:
        self.ownership.check()
        with self._run_locks[hash(run_id) % _STRIPES]:
            entry = self._live.get(run_id) or self._finished_entry(run_id)
            changed = change(entry.run)
            if changed is entry.run:
                return changed
            if run_id not in self._live:
                self._move_to_live(run_id, entry)
            is_saved = self._save(entry, changed, saving)
            if changed.is_finished:
                self._move_to_finished(changed)
        if is_saved:
            self._update_state_file(changed)
        return changed

    def latest(self) -> Run | None:
        listed = (self.get(run_id) for run_id in self._index.listed_ids())
        return next((run for run in listed if run is not None), None)

    def unfinished(self) -> list[Run]:
        with self._live_lock:
            return [self._live[run_id].run for run_id in sorted(self._live)]

    def page(self, limit: int, before: str | None = None) -> list[Run]:
        found: list[Run] = []
        while len(found) < limit and (ids := self._index.newest_ids(limit - len(found), before)):
            found.extend(run for run in map(self.get, ids) if run is not None)
            before = ids[-1]
        return found

    def summaries(
        self, limit: int | None = None, before: str | None = None, wanted: Wanted = EVERY_RUN
    ) -> list[RunSummary]:
        return self._index.newest(limit, before, wanted)

    def grouped(
        self, limit: int | None = None, before: str | None = None, wanted: Wanted = EVERY_RUN
    ) -> list[RunSummary]:
        return self._index.grouped(limit, before, wanted)

    def of_batch(self, batch_id: str) -> list[RunSummary]:
        return self._index.of_batch(batch_id)

    def count(self, wanted: Wanted = EVERY_RUN) -> int:
        return self._index.count(wanted)

    def latest_id(self) -> str | None:
        return self._index.latest_id()

    def by_idempotency_key(self, key: str) -> str | None:
        return self._index.by_idempotency_key(key)

    def batch_stamp(self, batch_id: str) -> int | None:
        return self._index.batch_stamp(batch_id)

    def billable_runs(self) -> Sequence[BillableRun]:
        return self._index.billable_runs()

    def duration_samples(self, most: int) -> Sequence[DurationSample]:
        return self._index.duration_samples(most)

    def _summary(self, run_id: str) -> RunSummary | None:
        """Returns a summary. Needs no lock: a run that ends is added to the finished runs before it is
        removed from the live runs."""
        entry = self._live.get(run_id)
        if entry is not None:
            return entry.summary
        return self._summary_log.get(run_id) or self._summary_of_record(run_id)

    def _add_live(self, entry: _Live) -> None:
        with self._live_lock:
            self._live[entry.run.run_id] = entry
        request = entry.run.request
        self._index.add(entry.run.run_id, request.batch_id, is_part=request.parent_id is not None)

    def _load(self) -> None:
        """Reads everything before it changes anything, so that records of a newer release stay unchanged."""
        found = sorted((self._root / "live").iterdir(), key=lambda path: path.name)
        loaded = self._read_live([path for path in found if not path.name.startswith(".new-")])
        unread = {path for path, read in loaded if isinstance(read, str)}
        incomplete = {path for path in found if path.name.startswith(".new-")}
        incomplete |= {path for path in unread if was_never_accepted(path, self._seal)}
        lines = self._read_summary_log()
        finished = self._finished_ids(lines)
        for run_id in finished[-_CHECKED_FOR_VERSION:]:
            refuse_newer(self._root / "finished" / run_id, self._seal)
        for path in sorted(incomplete):
            log.warning("%s was never accepted, and is removed", path.name)
            remove(path)
        for path, read in loaded:
            if path not in incomplete:
                self._load_live(path, read)
        self._load_finished(finished, lines)
        self._load_state_file()

    def _read_live(self, paths: Sequence[Path]) -> list[tuple[Path, Run | str]]:
        """Returns for each path the run, or the reason why it cannot be read. A graph that several runs share
        is checked once."""
        records, checked = RecordReader(self._seal), dict[int, Graph]()

        def read(path: Path) -> Run | str:
            try:
                run = records.read(path)
                is_graph_needed = run.request.workflow.editor_file is None and not run.lost
                if id(run.graph) not in checked and (run.graph or is_graph_needed):
                    check_graph(run.graph)
                    checked[id(run.graph)] = run.graph
            except (StoreError, InvalidGraph, OSError) as error:
                return str(error)
            return run

        return [(path, read(path)) for path in paths]

    def _load_live(self, path: Path, read: Run | str) -> None:
        run = self._rebuild(path) if isinstance(read, str) else read
        if run is None:
            move_to_quarantine(path, self._quarantine, str(read))
            return
        self._add_live(self._live_entry(run))
        if run.is_finished:
            self._move_to_finished(run)

    def _finished_ids(self, lines: Lines) -> list[str]:
        """Returns the ids of the finished runs, oldest first. Names that are in the summary log need no check
        (`is_dir`)."""
        with os.scandir(self._root / "finished") as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.name in lines.found or (is_run_id(entry.name) and entry.is_dir())
            )

    def _load_finished(self, ids: Sequence[str], lines: Lines) -> None:
        """Loads the finished runs from the summary log. Reads the record of a run without a line."""
        found = self._finished_summaries(ids, lines)
        is_whole = found.keys() == lines.found.keys() and not (lines.damaged or lines.cut_short)
        is_rewritten = not is_whole or lines.count > 2 * len(found) or lines.are_old
        self._summary_log.load(found, is_rewritten=is_rewritten)
        if lines.damaged:
            self.damage.add(
                self._summary_log.path,
                f"{lines.damaged} of its lines cannot be read",
                "The list was written again from the records of the runs",
            )
        self._index.add_finished(
            known.keys if isinstance(known, SummaryLine) else keys_of(known) for known in found.values()
        )

    def _finished_summaries(self, ids: Sequence[str], lines: Lines) -> dict[str, SummaryLine | RunSummary]:
        """Returns the summaries of the finished runs, without the runs that were loaded as live. A finished
        run that was moved only at this start has a newer summary than `lines`."""
        found: dict[str, SummaryLine | RunSummary] = {}
        for run_id in ids:
            if run_id in self._live:
                continue
            newest = self._summary_log.get(run_id) if run_id in self._summary_log else None
            known = newest or lines.found.get(run_id) or self._summary_of_record(run_id)
            if known is not None:
                found[run_id] = known
        return found

    def _load_state_file(self) -> None:
        """Puts a foreign state file into quarantine, then writes the latest run: the previous server may have
        stopped before it could."""
        if self._state_file is None:
            return
        path, reason = self._state_file.path, self._state_file.foreign_reason()
        if reason:
            move_to_quarantine(path, self._quarantine, reason)
            outcome = f"It was moved to {self._quarantine}. A new one is written with the latest run"
            self.damage.add(path, reason, outcome)
        if (latest := self.latest()) is not None:
            self._update_state_file(latest)

    def _rebuild(self, path: Path) -> Run | None:
        """Rebuilds a run whose record cannot be read. Raises: NewerRecord."""
        summary = self._summary_log.get(path.name)
        is_finished = path.parent.name == "finished"
        return self._rebuilder.rebuild(path, is_finished=is_finished, summary=summary)

    def _rebuild_finished(self, run_id: str) -> Run | None:
        """Rebuilds a finished run and its line in the summary log. If two threads do this at once, the second
        reads the record that the first has rebuilt."""
        path = self._root / "finished" / run_id
        with self._rebuilding:
            with contextlib.suppress(StoreError, OSError):
                return self._finished_records.read(path)
            run = self._rebuild(path)
            if run is not None:
                self._set_finished(summary_of(run))
        return run

    def _set_finished(self, summary: RunSummary) -> None:
        self._summary_log.append(summary)
        self._index.end(keys_of(summary))

    def _read_summary_log(self) -> Lines:
        path = self._summary_log.path
        if path.is_symlink() or (path.exists() and not path.is_file()):
            move_to_quarantine(path, self._quarantine, "it is not a file of ours")
        return self._summary_log.read()

    def _summary_of_record(self, run_id: str) -> RunSummary | None:
        run = self.get(run_id)
        return None if run is None else summary_of(run)

    def _live_path(self, run_id: str) -> Path:
        return self._root / "live" / run_id

    def _finished_entry(self, run_id: str) -> _Live:
        run = self.get(run_id)
        if run is None:
            raise RunNotFound(f"Workflow not found: {run_id}")
        return self._live_entry(run)

    def _live_entry(self, run: Run, *, is_new: bool = False) -> _Live:
        log = RunLog(self._live_path(run.run_id), run, self._seal, is_new=is_new)
        return _Live(run=run, log=log, saved_at_s=self._clock())

    def _read(self, run_id: str, of_run: Callable[[Run], T], of_record: Callable[[Path], T]) -> T | None:
        """Reads a live run from memory, a finished run from its record. Returns None if there is no such
        run."""
        with self._live_lock:
            entry = self._live.get(run_id)
        if entry is not None:
            return of_run(entry.run)
        if not is_run_id(run_id):
            return None
        try:
            return of_record(self._root / "finished" / run_id)
        except FileNotFoundError:
            entry = self._live.get(run_id)  # it may have become live again meanwhile
            return of_run(entry.run) if entry else None
        except (StoreError, OSError) as error:
            log.error("The record of %s cannot be read: %s", run_id, error)
            run = self._rebuild_finished(run_id)
            return None if run is None else of_run(run)

    def _save(self, entry: _Live, changed: Run, saving: Durability) -> bool:
        """Saves a change. Returns False if it only stays in memory until the next tick.

        Raises: StoreError if `saving` requires the change on disk and it cannot be saved."""
        if saving is Durability.TICK and self._clock() - entry.saved_at_s < TICK_S:
            entry.run, entry.is_saved = changed, False
            return False
        is_saved = True
        if saving in (Durability.MUST, Durability.SYNCED):
            entry.log.append(changed, must_reach_disk=saving is Durability.SYNCED)
            if changed.prompt_id is not None and changed.prompt_id != entry.run.prompt_id:
                write_submission(self._live_path(changed.run_id), changed, self._seal)
        else:
            is_saved = self._try_save(entry, changed, saving)
        entry.run, entry.saved_at_s, entry.is_saved = changed, self._clock(), is_saved
        return True

    def _try_save(self, entry: _Live, changed: Run, saving: Durability) -> bool:
        try:
            entry.log.append(changed, must_reach_disk=False)
        except StoreError as error:
            log.warning("%s: %s; kept in memory until the next step (%s)", changed.run_id, error, saving.name)
            return False
        return True

    def _move_to_live(self, run_id: str, entry: _Live) -> None:
        """Adds the run to the live runs before its record is moved, so that a read meanwhile finds it.
        Raises: StoreError."""
        self._add_live(entry)
        try:
            self._summary_log.strike_out(run_id)
            (self._root / "finished" / run_id).rename(self._live_path(run_id))
            flush_to_disk([self._root / "finished", self._root / "live"])
        except OSError as error:
            with self._live_lock:
                del self._live[run_id]
            raise cannot_save(error) from error

    def _move_to_finished(self, run: Run) -> None:
        """Moves a record to the finished runs. If the move fails, the next start moves it, since the record
        has the end of the run."""
        run_id = run.run_id
        summary = summary_of(run)
        self._summary_log.append(summary)
        try:
            self._live_path(run_id).rename(self._root / "finished" / run_id)
        except OSError as error:
            log.warning("%s stays among the live runs: %s", run_id, error)
            return
        with self._live_lock:
            del self._live[run_id]
        self._index.end(keys_of(summary))

    def _update_state_file(self, run: Run) -> None:
        """Writes the latest run, as in the response of `/state`, to the state file."""
        if self._state_file is None:
            return
        with self._state_lock:
            latest = self._index.latest_listed_id()
            if latest == run.run_id:
                self._state_file.show(self.get(latest) or run)
