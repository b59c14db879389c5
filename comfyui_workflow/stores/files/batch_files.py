"""Batches as JSON files: `DATA_DIR/batches/<batch_id>.json`, written after their runs, and when they are
cancelled. All are read at the start.

Where there is no file, the batch was never accepted. Where there is one that cannot be read, it was accepted,
and is made anew of its runs.
"""

import logging
import re
import threading
from pathlib import Path

from comfyui_workflow.errors import BatchNotFound, ConfigurationError, StoreError
from comfyui_workflow.runs.batch import Batch
from comfyui_workflow.runs.codec import decode_batch, encode_batch
from comfyui_workflow.stores.files.atomic_write import make_private_directory, write_atomically
from comfyui_workflow.stores.files.record_format import Seal
from comfyui_workflow.stores.files.run_directory import keep_aside, read_sealed

log = logging.getLogger(__name__)

_ID = re.compile("batch_[0-9]{1,12}_[0-9a-f]{1,32}")


class BatchFiles:
    """Every method may be called from any thread. Ids sort by age."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._aside = directory / "set-aside"
        self._seal = Seal(directory.parent)
        self._lock = threading.Lock()
        self._known: dict[str, Batch] = {}
        self._damaged: dict[str, str] = {}

    def open(self) -> None:
        """Raises: ConfigurationError, also where a newer release has written one."""
        try:
            make_private_directory(self._directory)
            for path in sorted(self._directory.glob("batch_*.json")):
                self._load(path)
        except OSError as error:
            raise ConfigurationError(f"{self._directory} cannot be used: {error.strerror}") from error

    @property
    def damaged(self) -> dict[str, str]:
        """Reasons by the ids of accepted batches whose records cannot be read."""
        with self._lock:
            return dict(self._damaged)

    def path_of(self, batch_id: str) -> Path:
        return self._directory / f"{batch_id}.json"

    def mend(self, batch: Batch) -> None:
        """The record as it was made anew, in place of the damaged one, which is kept aside. Where the disk
        does not take it, it is known all the same, and the next start makes it anew again."""
        path = self.path_of(batch.batch_id)
        keep_aside(path, self._aside, self.damaged.get(batch.batch_id, ""), path.name)
        try:
            self.add(batch)
        except StoreError as error:
            log.error("%s: %s", batch.batch_id, error)
        with self._lock:
            self._known[batch.batch_id] = batch

    def add(self, batch: Batch) -> None:
        """On disk when this returns, in place of what was known of it. Raises: StoreError."""
        try:
            write_atomically(self.path_of(batch.batch_id), self._seal.seal(encode_batch(batch)))
        except OSError as error:
            raise StoreError(f"The batch cannot be saved: {error.strerror}") from error
        with self._lock:
            self._known[batch.batch_id] = batch
            self._damaged.pop(batch.batch_id, None)

    def get(self, batch_id: str) -> Batch:
        """Raises: BatchNotFound."""
        with self._lock:
            known = self._known.get(batch_id)
        if known is None:
            raise BatchNotFound(f"Batch not found: {batch_id[:100]}")
        return known

    def page(self, limit: int, before: str | None) -> list[str]:
        """Ids, newest first."""
        with self._lock:
            ids = sorted((each for each in self._known if before is None or each < before), reverse=True)
        return ids[:limit]

    def latest_id(self) -> str | None:
        """Of the greatest id."""
        with self._lock:
            return max(self._known.keys() | self._damaged.keys(), default=None)

    def named(self, part: str) -> frozenset[str]:
        """Ids of those with that in their name, in capitals or not."""
        part = part.casefold()
        with self._lock:
            return frozenset(each for each, batch in self._known.items() if part in batch.name.casefold())

    def _load(self, path: Path) -> None:
        """Raises: NewerRecord."""
        if not _ID.fullmatch(path.stem):
            return
        try:
            batch = decode_batch(read_sealed(path, self._seal))
            if batch.batch_id != path.stem:
                raise StoreError("it is the record of another batch")
        except (StoreError, OSError) as error:
            self._damaged[path.stem] = str(error)
        else:
            self._known[path.stem] = batch
