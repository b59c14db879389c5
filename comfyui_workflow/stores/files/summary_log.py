"""Summaries of finished runs in one file, a line for each: so that opening ten thousand of them reads a file
and not ten thousand records. What it lacks is read from the records; what it says must be true.

A run that is taken up again is struck out, and that is on disk before the run changes. So whatever becomes of
the lines that follow (a full disk, a killed server, a power cut), no line tells of a run as it was before.
"""

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from comfyui_workflow.errors import StoreError
from comfyui_workflow.files.atomic_write import append_line, write_atomically
from comfyui_workflow.files.disk_flush import flush_to_disk
from comfyui_workflow.runs.codec import decode_summary, encode_summary
from comfyui_workflow.runs.summary import RunSummary
from comfyui_workflow.stores.files.record_format import Seal
from comfyui_workflow.stores.index_keys import SummaryLine, keys_of_line

log = logging.getLogger(__name__)

_STRUCK = b"struck out: "


@dataclass(kw_only=True)
class Lines:
    """What the last line of each run says."""

    found: dict[str, SummaryLine] = field(default_factory=dict)
    count: int = 0
    """Of all lines."""
    damaged: int = 0
    """That cannot be read, though they were written whole."""
    cut_short: int = 0
    """By a server that was killed, or a power cut."""
    are_old: bool = False
    """Some are without the head that an earlier release did not write."""


class SummaryLog:
    """Every method may be called from any thread."""

    def __init__(self, path: Path, seal: Seal) -> None:
        self.path = path
        self._seal = seal
        self._lock = threading.Lock()

    def read(self) -> Lines:
        """A line that is none is skipped. Lines are not flushed, so a power cut may leave the last one short,
        or with zeros where its bytes were to come. Raises: NewerRecord, OSError."""
        lines = Lines()
        try:
            *ended, last = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return lines
        given = [*ended, last] if last else ended
        lines.count = len(given)
        for number, line in enumerate(given):
            if line.startswith(_STRUCK):
                lines.found.pop(line.removeprefix(_STRUCK).decode(errors="replace"), None)
                continue
            is_sealed = self._seal.is_sealed(line)
            try:
                read = self._read(line, is_sealed=is_sealed)
            except StoreError:
                if number == len(ended) or b"\0" in line:
                    lines.cut_short += 1
                else:
                    lines.damaged += bool(line)
                continue
            lines.are_old = lines.are_old or not is_sealed
            lines.found[read.keys.run_id] = read
        return lines

    def _read(self, line: bytes, *, is_sealed: bool) -> SummaryLine:
        """One without a checksum is checked as a whole. Raises: StoreError, NewerRecord."""
        summary = self._seal.unseal(line, self.path)
        if not is_sealed:
            decode_summary(summary)
        return SummaryLine(line=summary, keys=keys_of_line(summary))

    def append(self, summary: RunSummary) -> None:
        """Not at once on disk. Where it cannot be written, the next start reads the record instead."""
        try:
            self._append(self._seal.seal(encode_summary(summary)))
        except OSError as error:
            log.warning("%s: its line in the list is not saved: %s", summary.run_id, error.strerror)

    def strike_out(self, run_id: str) -> None:
        """On disk when this returns. Raises: OSError."""
        self._append(_STRUCK + run_id.encode(), must_reach_disk=True)

    def rewrite(self, summaries: Iterable[SummaryLine | RunSummary]) -> None:
        """These and no others. Where it cannot be done, the file stays as it was."""
        lines = [
            self._seal.seal(each.line if isinstance(each, SummaryLine) else encode_summary(each)) + b"\n"
            for each in summaries
        ]
        try:
            with self._lock:
                write_atomically(self.path, b"".join(lines))
        except OSError as error:
            log.warning("%s cannot be written: %s", self.path, error.strerror)

    def _append(self, line: bytes, *, must_reach_disk: bool = False) -> None:
        with self._lock:
            append_line(self.path, line)
        if must_reach_disk:
            flush_to_disk([self.path])
