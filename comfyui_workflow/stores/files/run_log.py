"""The log of one live run, run.jsonl, and its graph, graph.json: what may be lost to a power cut, and what
not.

Lines are appended, and nothing is ever replaced but a log that has grown long. So what was flushed once
stays, and a flush of one line brings all lines before it to the disk too.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from comfyui_workflow.errors import StoreError
from comfyui_workflow.files.atomic_write import append_line, write_atomically, write_new
from comfyui_workflow.files.disk_flush import flush_to_disk
from comfyui_workflow.runs.changes import encode_change, is_state
from comfyui_workflow.runs.codec import encode_graph, encode_run
from comfyui_workflow.runs.model import Run
from comfyui_workflow.stores.files.record_format import RecordFormat
from comfyui_workflow.workflows.graph import Graph

LOG, GRAPH = "run.jsonl", "graph.json"
COMPACT_AFTER_BYTES = 1024 * 1024
"""A shorter log is never made anew."""
_COMPACT_AFTER_TIMES = 8
"""A longer one is, when it is so many times as long as the state: little, beside what was written since."""


@dataclass(frozen=True, kw_only=True)
class LogRead:
    """The whole part of a log, from its beginning or its last whole state."""

    content: bytes
    trouble: str | None
    """Why the rest cannot be used; None where nothing is missing that anybody relied on."""


def read_log(content: bytes, path: Path, seal: RecordFormat) -> LogRead:
    """The lines without their seals. A line without a line break, at the end, was cut short: it was not on
    the disk when anybody relied on it. So was one that a whole state follows. Any other that cannot be read
    is damaged. Raises: NewerRecord."""
    if content.find(b"\n") == len(content) - 1:  # most runs, while they wait
        only = _unsealed(content[:-1], path, seal)
        if only is not None and is_state(only):
            return LogRead(content=only + b"\n", trouble=None)
    *ended, cut = content.split(b"\n")
    whole: list[bytes] = []
    trouble: str | None = None
    for number, line in enumerate(ended, start=1):
        read = _unsealed(line, path, seal)
        if read is not None and is_state(read):
            whole, trouble = [read], None
        elif trouble is None and line:
            if read is None:
                trouble = f"line {number} of {path.name} is damaged"
            else:
                whole.append(read)
    last = _unsealed(cut, path, seal)
    if last is not None and trouble is None:
        whole = [last] if is_state(last) else [*whole, last]
    return LogRead(content=b"\n".join([*whole, b""]), trouble=trouble)


def _unsealed(line: bytes, path: Path, seal: RecordFormat) -> bytes | None:
    """None for a line that is none. Raises: NewerRecord."""
    try:
        read = seal.unseal(line, path)
    except StoreError:
        return None
    is_whole = read.startswith((b'{"workflow_id"', b'{"n"')) and read.endswith(b"}")
    return read if is_whole else None


class RunLog:
    """Not to be used by two threads at a time."""

    def __init__(self, directory: Path, run: Run, seal: RecordFormat, *, is_new: bool) -> None:
        """`run` is what the directory says; a new one is a single state."""
        self._seal = seal
        self._directory = directory
        self._saved: Run | None = run if is_new else None
        self._changes = 0
        self._graph = run.prepared_graph
        self._longest_bytes = COMPACT_AFTER_BYTES

    def append(self, run: Run, *, must_reach_disk: bool) -> None:
        """Raises: StoreError; then the next line is a whole state, whatever became of this one."""
        before, self._saved = self._saved, None
        try:
            written = [*self._write_graph(run.prepared_graph), *self._append_line(before, run)]
            if must_reach_disk:
                flush_to_disk(written)
            if run.prepared_graph is None and self._graph is not None:
                self._graph = None
                (self._directory / GRAPH).unlink(missing_ok=True)
        except OSError as error:
            raise cannot_save(error) from error
        self._saved = run

    def _write_graph(self, graph: Graph | None) -> list[Path]:
        """Flushed with the line that tells of it, before any line that relies on it is written."""
        if graph is None or graph is self._graph:
            return []
        path, self._graph = self._directory / GRAPH, None
        path.unlink(missing_ok=True)
        write_new(path, self._seal.seal(encode_graph(graph)))
        self._graph = graph
        return [path, self._directory]

    def _append_line(self, before: Run | None, run: Run) -> list[Path]:
        path = self._directory / LOG
        self._changes = 0 if before is None else self._changes + 1
        line = encode_run(run) if before is None else encode_change(before, run, self._changes)
        if append_line(path, self._seal.seal(line)) > self._longest_bytes:
            state = self._seal.seal(encode_run(run)) + b"\n"
            write_atomically(path, state)
            self._longest_bytes = COMPACT_AFTER_BYTES + _COMPACT_AFTER_TIMES * len(state)
            self._changes = 0
        return [path] if before is not None else [path, self._directory]


def cannot_save(error: OSError) -> StoreError:
    where = f" ({error.filename})" if error.filename else ""
    return StoreError(f"The run cannot be saved: {os.strerror(error.errno or 0)}{where}")
