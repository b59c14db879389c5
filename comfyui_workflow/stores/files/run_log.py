"""The log of one live run, run.jsonl, and its graph, graph.json.

How it works: each line is a whole state of the run or a change of it. Lines are appended; only a log that has
become long is replaced, by one whole state. So flushed lines are never lost, and the flush of one line also
flushes all lines before it. A power cut may lose only lines that were not flushed.
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
"""A shorter log is never compacted."""
_COMPACT_AFTER_TIMES = 8
"""After a compaction, the log may grow by this multiple of the state's size before the next one. So the cost
of compaction is small compared with the lines written since."""


@dataclass(frozen=True, kw_only=True)
class LogRead:
    """The undamaged part of a log, from its beginning or its last whole state."""

    content: bytes
    trouble: str | None
    """Why the rest cannot be used; None if no flushed line is missing."""


def read_log(content: bytes, path: Path, seal: RecordFormat) -> LogRead:
    """Returns the lines without their seals.

    An unreadable last line without a line break is incomplete: it was never flushed, so it is ignored. An
    unreadable line before a whole state is ignored too. Every other unreadable line is damaged.

    Raises: NewerRecord."""
    if content.find(b"\n") == len(content) - 1:  # fast path: most waiting runs
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
    """Returns the line without its seal, None if it is not a valid line. Raises: NewerRecord."""
    try:
        read = seal.unseal(line, path)
    except StoreError:
        return None
    is_whole = read.startswith((b'{"workflow_id"', b'{"n"')) and read.endswith(b"}")
    return read if is_whole else None


class RunLog:
    """Appends the changes of one run. Not thread-safe."""

    def __init__(self, directory: Path, run: Run, seal: RecordFormat, *, is_new: bool) -> None:
        """`run` is the run as the directory has it. `is_new`: the log is a single whole state."""
        self._seal = seal
        self._directory = directory
        self._saved: Run | None = run if is_new else None
        self._changes = 0
        self._graph = run.prepared_graph
        self._longest_bytes = COMPACT_AFTER_BYTES

    def append(self, run: Run, *, must_reach_disk: bool) -> None:
        """Appends a line. Raises: StoreError; then the next line is a whole state, since this line may be
        incomplete."""
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
        """Writes the graph if it is new. It is flushed with the line of the same change, before a later line
        depends on it."""
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
