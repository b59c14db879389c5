"""Ids of runs and batches whose end must still be notified, as empty files: `DATA_DIR/notifications/<id>`."""

import logging
from pathlib import Path

from comfyui_workflow.errors import StoreError
from comfyui_workflow.files.atomic_write import make_private_directory, write_atomically
from comfyui_workflow.runs.status import is_batch_id, is_run_id

log = logging.getLogger(__name__)


class FilePendingStore:
    """See the module. The directory is made when it is needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(self, subject_id: str) -> None:
        try:
            make_private_directory(self._directory)
            write_atomically(self._directory / subject_id, b"")
        except OSError as error:
            raise StoreError(f"The notification cannot be saved: {error.strerror}") from error

    def remove(self, subject_id: str) -> None:
        try:
            (self._directory / subject_id).unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s stays among the pending notifications: %s", subject_id, error.strerror)

    def all(self) -> list[str]:
        try:
            names = [path.name for path in self._directory.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"{self._directory} cannot be read: {error.strerror}") from error
        return sorted(name for name in names if is_run_id(name) or is_batch_id(name))
