"""Summaries of finished runs in one file, one line per run. So a start with ten thousand finished runs reads
one file instead of ten thousand records. Missing summaries are read from the records, but a line that exists
must be true.

How it works: memory has only the offset of each line. A summary is read on demand, and the summaries that
were read last are cached.

If a finished run continues, a line that strikes it out is appended, and is on disk before the run changes. So
no line shows an outdated run, even if later lines are lost (full disk, killed server, power cut).
"""

import logging
import os
import threading
from array import array
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from comfyui_workflow.errors import StoreError
from comfyui_workflow.files.atomic_write import append_line, write_atomically
from comfyui_workflow.files.disk_flush import flush_to_disk
from comfyui_workflow.runs.codec import decode_summary, encode_summary
from comfyui_workflow.runs.summary import RunSummary
from comfyui_workflow.stores.files.record_format import NewerRecord, RecordFormat
from comfyui_workflow.stores.sorted_ids import SortedIds
from comfyui_workflow.stores.summary_keys import SummaryKeys, decode_keys

log = logging.getLogger(__name__)

MOST_CACHED = 4096
"""Size of the cache; each summary is about a kilobyte."""
_STRUCK = b"struck out: "
_NONE = -1
_READ_BYTES = 4096
"""Bytes per read; most lines are shorter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SummaryLine:
    """A line of the file: its JSON, the fields for the index, and its offset in bytes."""

    summary: bytes
    keys: SummaryKeys
    begins_at: int


@dataclass(kw_only=True)
class Lines:
    """Result of reading the file. `found` has the last line of each run, by run id."""

    found: dict[str, SummaryLine] = field(default_factory=dict)
    count: int = 0
    """Number of all lines."""
    damaged: int = 0
    """Number of lines that were written completely and cannot be read."""
    cut_short: int = 0
    """Number of lines that are incomplete after a killed server or a power cut."""
    are_old: bool = False
    """True if some lines have no seal: an earlier release has written them."""


class SummaryLog:
    """See the module. Thread-safe."""

    def __init__(self, path: Path, seal: RecordFormat) -> None:
        self.path = path
        self._seal = seal
        self._lock = threading.Lock()
        self._begins_at = Offsets()
        self._unsaved: dict[str, bytes] = {}
        """Encoded summaries, by run id, whose lines could not be written."""
        self._cache: OrderedDict[str, RunSummary] = OrderedDict()
        self._descriptor: int | None = None

    def read(self) -> Lines:
        """Reads all lines; skips invalid ones. Lines are not flushed, so after a power cut the last line may
        be incomplete or have NUL bytes. Raises: NewerRecord, OSError."""
        lines = Lines()
        try:
            *ended, last = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return lines
        given = [*ended, last] if last else ended
        lines.count = len(given)
        begins_at = 0
        for number, line in enumerate(given):
            self._read_line(lines, line, begins_at, is_last=number == len(ended))
            begins_at += len(line) + 1
        return lines

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._begins_at or run_id in self._unsaved

    def get(self, run_id: str) -> RunSummary | None:
        """Returns the summary of a run; None if the file has no valid line for it."""
        with self._lock:
            cached = self._cache.get(run_id)
            if cached is not None:
                self._cache.move_to_end(run_id)
                return cached
            begins_at = self._begins_at.get(run_id)
        try:
            summary = self._read_summary(run_id, begins_at)
        except (StoreError, NewerRecord, OSError) as error:
            log.error("%s: its line in %s cannot be read: %s", run_id, self.path, error)
            self.close()  # the path may be another file now: open it again
            return None
        if summary is not None:
            self._add_to_cache(summary, begins_at)
        return summary

    def append(self, summary: RunSummary) -> None:
        """Appends the line of a run, without a flush. If it cannot be written, the summary is kept in memory,
        and the next start reads the record instead."""
        run_id, content = summary.run_id, encode_summary(summary)
        line = self._seal.seal(content)
        with self._lock:
            self._forget(run_id)
            try:
                self._begins_at.set(run_id, self._append(line) - len(line) - 1)
            except OSError as error:
                log.warning("%s: its line in the list is not saved: %s", run_id, error.strerror)
                self._unsaved[run_id] = content

    def strike_out(self, run_id: str) -> None:
        """Removes a run from the log, on disk when this returns. Raises: OSError; then its line is still
        valid."""
        with self._lock:
            self._append(_STRUCK + run_id.encode())
        flush_to_disk([self.path])
        with self._lock:
            self._forget(run_id)

    def load(self, known: Mapping[str, SummaryLine | RunSummary], *, is_rewritten: bool) -> None:
        """Sets the runs of the log: lines that were read, and summaries without a line. `is_rewritten` writes
        the file again with exactly these runs; if that fails, the file stays unchanged."""
        with self._lock:
            self._begins_at = Offsets(
                {run_id: each.begins_at for run_id, each in known.items() if isinstance(each, SummaryLine)}
            )
            self._unsaved = {
                run_id: encode_summary(each)
                for run_id, each in known.items()
                if not isinstance(each, SummaryLine)
            }
            self._cache.clear()
            if is_rewritten:
                self._rewrite(known)

    def close(self) -> None:
        with self._lock:
            self._close_file()

    def _read_line(self, lines: Lines, line: bytes, begins_at: int, *, is_last: bool) -> None:
        if line.startswith(_STRUCK):
            lines.found.pop(line.removeprefix(_STRUCK).decode(errors="replace"), None)
            return
        is_sealed = self._seal.is_sealed(line)
        try:
            summary = self._seal.unseal(line, self.path)
            if not is_sealed:
                decode_summary(summary)  # no checksum: decode all of it as a check
            keys = decode_keys(summary)
        except StoreError:
            if is_last or b"\0" in line:
                lines.cut_short += 1
            else:
                lines.damaged += bool(line)
            return
        lines.are_old = lines.are_old or not is_sealed
        lines.found[keys.run_id] = SummaryLine(summary=summary, keys=keys, begins_at=begins_at)

    def _read_summary(self, run_id: str, begins_at: int | None) -> RunSummary | None:
        """Raises: StoreError, OSError."""
        if begins_at is None:
            unsaved = self._unsaved.get(run_id)
            return None if unsaved is None else decode_summary(unsaved)
        with self._lock:
            line = self._line_at(begins_at)
        summary = decode_summary(self._seal.unseal(line, self.path))
        if summary.run_id != run_id:
            raise StoreError("the line is that of another run: the file was changed")
        return summary

    def _line_at(self, begins_at: int) -> bytes:
        """Raises: OSError."""
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        line = b""
        while b"\n" not in line:
            part = os.pread(self._descriptor, _READ_BYTES, begins_at + len(line))
            if not part:
                break
            line += part
        return line.partition(b"\n")[0]

    def _add_to_cache(self, summary: RunSummary, begins_at: int | None) -> None:
        """Caches a summary, unless the line of the run has changed meanwhile."""
        with self._lock:
            if self._begins_at.get(summary.run_id) != begins_at:
                return
            self._cache[summary.run_id] = summary
            if len(self._cache) > MOST_CACHED:
                self._cache.popitem(last=False)

    def _forget(self, run_id: str) -> None:
        self._begins_at.remove(run_id)
        self._unsaved.pop(run_id, None)
        self._cache.pop(run_id, None)

    def _append(self, line: bytes) -> int:
        """Appends a line and returns the new size of the file. Raises: OSError."""
        return append_line(self.path, line)

    def _rewrite(self, known: Mapping[str, SummaryLine | RunSummary]) -> None:
        lines = {
            run_id: self._seal.seal(each.summary if isinstance(each, SummaryLine) else encode_summary(each))
            for run_id, each in known.items()
        }
        try:
            write_atomically(self.path, b"".join(line + b"\n" for line in lines.values()))
        except OSError as error:
            log.warning("%s cannot be written: %s", self.path, error.strerror)
            return
        self._close_file()
        self._unsaved.clear()
        ends_at = accumulate(len(line) + 1 for line in lines.values())
        self._begins_at = Offsets(dict(zip(lines, (0, *ends_at), strict=False)))

    def _close_file(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


class Offsets:
    """Offset of a line by run id. Like `SortedIds`, without an object for each run. Not thread-safe."""

    def __init__(self, offsets: Mapping[str, int] | None = None) -> None:
        known = offsets or {}
        self._ids = SortedIds(known)
        self._offsets = array("q", (known[run_id] for run_id in self._ids))

    def __contains__(self, run_id: str) -> bool:
        return self.get(run_id) is not None

    def get(self, run_id: str) -> int | None:
        position = self._ids.find(run_id)
        return None if position is None or self._offsets[position] == _NONE else self._offsets[position]

    def set(self, run_id: str, offset: int) -> None:
        position = self._ids.insert(run_id)
        if position is not None:
            self._offsets.insert(position, offset)
        else:
            self._offsets[self._ids.place(run_id)] = offset

    def remove(self, run_id: str) -> None:
        """The id stays: few runs continue after their end."""
        position = self._ids.find(run_id)
        if position is not None:
            self._offsets[position] = _NONE
