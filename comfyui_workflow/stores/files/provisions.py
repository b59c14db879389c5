"""What was put on each machine by a manifest, as JSON files:

DATA_DIR/provisions/<machine>.json          the state of the last application, and its log
DATA_DIR/provisions/<machine>.lock.json     what was there after it: versions, commits, sizes and hashes
"""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfyui_workflow.errors import StoreError
from comfyui_workflow.files.atomic_write import make_private_directory, write_atomically
from comfyui_workflow.parsing.untrusted import read_json
from comfyui_workflow.stores.damage import DamageReport
from comfyui_workflow.stores.files.quarantine import link_to_quarantine
from comfyui_workflow.stores.files.record_format import RecordFormat

log = logging.getLogger(__name__)


class FileProvisionStore:
    """See the module. The directory is made when it is needed. Thread-safe for different machines."""

    def __init__(self, directory: Path, damage: DamageReport | None = None) -> None:
        self._directory = directory
        self._damage = damage or DamageReport()
        self._format = RecordFormat()

    def state(self, machine: str) -> dict[str, Any] | None:
        """Returns None if there is none. A damaged file is kept as `<name>.damaged-…`. Raises:
        NewerRecord."""
        return self._read(self._path(machine, "json"))

    def lock(self, machine: str) -> dict[str, Any] | None:
        """As `state`."""
        return self._read(self._path(machine, "lock.json"))

    def save_state(self, machine: str, state: Mapping[str, Any]) -> None:
        """Raises: StoreError."""
        self._write(self._path(machine, "json"), state)

    def save_lock(self, machine: str, lock: Mapping[str, Any]) -> None:
        """Raises: StoreError."""
        self._write(self._path(machine, "lock.json"), lock)

    def _path(self, machine: str, ending: str) -> Path:
        return self._directory / f"{re.sub('[^A-Za-z0-9_-]', '_', machine)[:100]}.{ending}"

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            found = read_json(self._format.read(path))
            if not isinstance(found, dict):
                raise StoreError(f"{path.name} is no object")
        except FileNotFoundError:
            return None
        except (OSError, StoreError, ValueError) as error:
            link_to_quarantine(path, path.parent, str(error), f"{path.name}.damaged")
            self._damage.add(path, error, "It is written again when a manifest is applied there")
            return None
        return found

    def _write(self, path: Path, content: Mapping[str, Any]) -> None:
        try:
            make_private_directory(self._directory)
            text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
            write_atomically(path, self._format.seal(text.encode("utf-8", "replace")))
        except OSError as error:
            raise StoreError(f"{path.name} cannot be saved: {error.strerror}") from error
