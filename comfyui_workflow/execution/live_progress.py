"""Live progress of executing runs: the latest preview picture and the file transfers.

The data is in memory only, and only while a run has a session. It is dropped when the run leaves its instance
or ends. No run depends on it.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from comfyui_workflow.comfyui.previews import Preview
from comfyui_workflow.concurrency import CancelToken

Report = Callable[[int, int], None]
"""Progress callback of a transfer: bytes done and total bytes. The total is 0 while it is unknown."""


LARGEST_PREVIEW_BYTES = 4 * 1024 * 1024
"""A preview has 150 KB at most; the results of some nodes are sent in the same way."""


class Direction(StrEnum):
    UPLOAD = "upload"
    DOWNLOAD = "download"


OnBytes = Callable[[Direction, str, int], None]


def _nothing(_direction: Direction, _filename: str, _done_bytes: int) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class LivePreview:
    """`number` increases with each picture of any run."""

    number: int
    preview: Preview


@dataclass(kw_only=True, eq=False)
class Transfer:
    """One file transfer. Only the thread that transfers the file changes it."""

    direction: Direction
    filename: str
    stop: CancelToken
    on_bytes: OnBytes
    done_bytes: int = 0
    total_bytes: int | None = None

    def report(self, done_bytes: int, total_bytes: int) -> None:
        self.stop.check()
        self.on_bytes(self.direction, self.filename, done_bytes)
        self.done_bytes = done_bytes
        self.total_bytes = total_bytes or self.total_bytes


class LiveRun:
    """Live progress of one run on its session. Thread-safe."""

    def __init__(self, numbers: Iterator[int] | None = None, on_bytes: OnBytes | None = None) -> None:
        """`on_bytes` is called by any thread with the number of bytes of a file so far."""
        self._numbers = numbers or itertools.count(1)
        self._on_bytes = on_bytes or _nothing
        self._lock = threading.Lock()
        self._transfers: list[Transfer] = []
        self.preview: LivePreview | None = None

    def show(self, preview: Preview) -> None:
        """Replaces the preview. A picture that is too large for a preview is left out. Returns at once."""
        if len(preview.picture) > LARGEST_PREVIEW_BYTES:
            return
        self.preview = LivePreview(number=next(self._numbers), preview=preview)

    @contextmanager
    def transfer(self, direction: Direction, filename: str, stop: CancelToken) -> Iterator[Report]:
        """Registers a transfer until the block ends. The callback raises Stopped after `stop` was
        cancelled."""
        transfer = Transfer(direction=direction, filename=filename, stop=stop, on_bytes=self._on_bytes)
        with self._lock:
            self._transfers.append(transfer)
        try:
            yield transfer.report
        finally:
            with self._lock:
                self._transfers.remove(transfer)

    def transfers(self) -> list[Transfer]:
        with self._lock:
            return list(self._transfers)


class LiveProgress:
    """Live progress of all executing runs. Thread-safe."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._runs: dict[str, LiveRun] = {}

    @contextmanager
    def open(self, run_id: str, on_bytes: OnBytes | None = None) -> Iterator[LiveRun]:
        """Registers the run while its thread executes it. `on_bytes` as for `LiveRun`."""
        self._runs[run_id] = run = LiveRun(self._numbers, on_bytes)
        try:
            yield run
        finally:
            if self._runs.get(run_id) is run:
                del self._runs[run_id]

    def preview(self, run_id: str) -> LivePreview | None:
        run = self._runs.get(run_id)
        return None if run is None else run.preview

    def document(self, run_id: str) -> dict[str, Any]:
        """The live fields of a progress document."""
        run = self._runs.get(run_id)
        transfers = [] if run is None else run.transfers()
        return {**self.line(run_id), "transfers": [_transfer_document(each) for each in transfers]}

    def line(self, run_id: str) -> dict[str, Any]:
        """The live fields of a list entry."""
        live = self.preview(run_id)
        return {"live_preview": None if live is None else _preview_document(live)}


def _preview_document(live: LivePreview) -> dict[str, Any]:
    return {
        "number": live.number,
        "node_id": live.preview.place.node_id,
        "content_type": live.preview.content_type,
    }


def _transfer_document(transfer: Transfer) -> dict[str, Any]:
    return {
        "direction": transfer.direction.value,
        "filename": transfer.filename,
        "done_bytes": transfer.done_bytes,
        "total_bytes": transfer.total_bytes,
    }
