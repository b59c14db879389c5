"""Batches as JSON files: `DATA_DIR/batches/<batch_id>.json`, written after their runs, and when they are
cancelled."""

import re
import threading
from pathlib import Path

from comfyui_workflow.errors import BatchNotFound, ConfigurationError, StoreError
from comfyui_workflow.runs.batch import Batch
from comfyui_workflow.runs.codec import decode_batch, encode_batch
from comfyui_workflow.stores.atomic import make_private_directory, write_atomically


class BatchFiles:
    """Every method may be called from any thread. Ids sort by age."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._known: dict[str, Batch] = {}

    def open(self) -> None:
        """Raises: ConfigurationError."""
        try:
            make_private_directory(self._directory)
        except OSError as error:
            raise ConfigurationError(f"{self._directory} cannot be used: {error.strerror}") from error

    def add(self, batch: Batch) -> None:
        """On disk when this returns, in place of what was known of it. Raises: StoreError."""
        try:
            write_atomically(self._path(batch.batch_id), encode_batch(batch))
        except OSError as error:
            raise StoreError(f"The batch cannot be saved: {error.strerror}") from error
        with self._lock:
            self._known[batch.batch_id] = batch

    def get(self, batch_id: str) -> Batch:
        """Raises: BatchNotFound."""
        with self._lock:
            known = self._known.get(batch_id)
        if known is None:
            known = self._read(batch_id)
            with self._lock:
                self._known[batch_id] = known
        return known

    def page(self, limit: int, before: str | None) -> list[str]:
        """Ids, newest first."""
        ids = sorted(self._ids(), reverse=True)
        return [batch_id for batch_id in ids if before is None or batch_id < before][:limit]

    def named(self, part: str) -> frozenset[str]:
        """Ids of those with that in their name, in capitals or not; of those whose record can be read."""
        return frozenset(
            batch_id for batch_id in self._ids() if part.casefold() in self._name(batch_id).casefold()
        )

    def _ids(self) -> list[str]:
        return [path.stem for path in self._directory.glob("batch_*.json")]

    def _name(self, batch_id: str) -> str:
        try:
            return self.get(batch_id).name
        except BatchNotFound:
            return ""

    def _read(self, batch_id: str) -> Batch:
        try:
            if not re.fullmatch("batch_[0-9]{1,12}_[0-9a-f]{1,32}", batch_id):
                raise FileNotFoundError
            return decode_batch(self._path(batch_id).read_bytes())
        except FileNotFoundError as error:
            raise BatchNotFound(f"Batch not found: {batch_id}") from error
        except (OSError, StoreError) as error:
            raise BatchNotFound(f"The record of the batch {batch_id} cannot be read") from error

    def _path(self, batch_id: str) -> Path:
        return self._directory / f"{batch_id}.json"
