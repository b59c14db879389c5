"""Batches as JSON files: `DATA_DIR/batches/<batch_id>.json`. A file is written after the runs of the batch,
and when the batch is cancelled. All files are read at the start and kept in memory.

A batch without a file was never accepted. A batch with an unreadable file was accepted, and is rebuilt from
its runs.
"""

import logging
import re
import threading
from collections.abc import Mapping
from pathlib import Path

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.batch import Batch
from comfyui_workflow.runs.codec import decode_batch, encode_batch
from comfyui_workflow.stores.base import UnreadableRecord
from comfyui_workflow.stores.files.record_files import RecordFiles
from comfyui_workflow.stores.files.record_format import RecordFormat
from comfyui_workflow.stores.memory import MemoryBatchStore

log = logging.getLogger(__name__)

_ID = re.compile("batch_[0-9]{1,12}_[0-9a-f]{1,32}")


class FileBatchStore:
    def __init__(self, directory: Path) -> None:
        self._files = RecordFiles(directory, "batch", RecordFormat(directory.parent))
        self._memory = MemoryBatchStore()
        self._lock = threading.Lock()
        self._unreadable: dict[str, UnreadableRecord] = {}

    def open(self) -> None:
        """Reads all batches. Raises: ConfigurationError, also if a newer release has written a record."""
        self._files.open()
        for batch_id, read in self._files.read_all(_ID, decode_batch, lambda batch: batch.batch_id):
            if isinstance(read, UnreadableRecord):
                self._unreadable[batch_id] = read
            else:
                self._memory.add(read)

    @property
    def unreadable(self) -> Mapping[str, UnreadableRecord]:
        with self._lock:
            return dict(self._unreadable)

    def replace_unreadable(self, batch: Batch) -> None:
        """Replaces an unreadable batch; the damaged file is kept in quarantine."""
        with self._lock:
            damaged = self._unreadable.pop(batch.batch_id, None)
        if damaged is not None:
            self._files.link_to_quarantine(batch.batch_id, damaged.reason)
        try:
            self.add(batch)
        except StoreError as error:
            log.error("%s: %s", batch.batch_id, error)
            self._memory.add(batch)

    def add(self, batch: Batch) -> None:
        self._files.write(batch.batch_id, encode_batch(batch))
        self._memory.add(batch)
        with self._lock:
            self._unreadable.pop(batch.batch_id, None)

    def get(self, batch_id: str) -> Batch:
        return self._memory.get(batch_id)

    def page(self, limit: int, before: str | None) -> list[str]:
        return self._memory.page(limit, before)

    def latest_id(self) -> str | None:
        newest = self._memory.latest_id()
        return max([*self.unreadable, *([newest] if newest else [])], default=None)

    def by_idempotency_key(self, key: str) -> str | None:
        return self._memory.by_idempotency_key(key)

    def named(self, part: str) -> frozenset[str]:
        return self._memory.named(part)
