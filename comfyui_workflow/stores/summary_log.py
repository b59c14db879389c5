"""Summaries of finished runs in one file, a line for each: so that opening ten thousand of them reads a file
and not ten thousand records. What it lacks is read from the records; what it says must be true.

A run that is taken up again is struck out, and that is on disk before the run changes. So whatever becomes of
the lines that follow (a full disk, a killed server, a power cut), no line tells of a run as it was before.
"""

import contextlib
import logging
import threading
from collections.abc import Iterable
from pathlib import Path

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.codec import decode_summary, encode_summary
from comfyui_workflow.runs.summary import RunSummary
from comfyui_workflow.stores.atomic import append_line, write_atomically
from comfyui_workflow.stores.flush import flush_to_disk

log = logging.getLogger(__name__)

_STRUCK = b"struck out: "


class SummaryLog:
    """Every method may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def read(self) -> tuple[dict[str, RunSummary], int]:
        """What the last line of each run says, and how many lines there are. A line that is none is skipped.
        Raises: OSError."""
        found: dict[str, RunSummary] = {}
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return {}, 0
        for line in lines:
            if line.startswith(_STRUCK):
                found.pop(line.removeprefix(_STRUCK).decode(errors="replace"), None)
                continue
            with contextlib.suppress(StoreError):
                summary = decode_summary(line)
                found[summary.workflow_id] = summary
        return found, len(lines)

    def append(self, summary: RunSummary) -> None:
        """Not at once on disk. Where it cannot be written, the next start reads the record instead."""
        try:
            self._append(encode_summary(summary))
        except OSError as error:
            log.warning("%s: its line in the list is not saved: %s", summary.workflow_id, error.strerror)

    def strike_out(self, workflow_id: str) -> None:
        """On disk when this returns. Raises: OSError."""
        self._append(_STRUCK + workflow_id.encode(), must_reach_disk=True)

    def rewrite(self, summaries: Iterable[RunSummary]) -> None:
        """These and no others. Where it cannot be done, the file stays as it was."""
        lines = [encode_summary(summary) + b"\n" for summary in summaries]
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
