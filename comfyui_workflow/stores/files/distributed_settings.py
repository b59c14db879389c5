"""The settings of ComfyUI-Distributed's clients in one JSON file, which each update replaces."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

from comfyui_workflow.errors import StoreError
from comfyui_workflow.files.atomic_write import write_atomically
from comfyui_workflow.parsing.untrusted import as_object, read_json
from comfyui_workflow.stores.base import Document
from comfyui_workflow.stores.damage import DamageReport
from comfyui_workflow.stores.files.quarantine import link_to_quarantine
from comfyui_workflow.stores.files.record_format import RecordFormat


class FileDistributedSettingsStore:
    """Thread-safe."""

    def __init__(self, file: Path, damage: DamageReport | None = None) -> None:
        self._file = file
        self._seal = RecordFormat()
        self._damage = damage or DamageReport()
        self._lock = threading.Lock()
        self._settings: Document = {}

    def open(self) -> None:
        """Reads the settings. An unreadable file is kept as `<name>.damaged-…`. Raises: NewerRecord."""
        try:
            self._settings = as_object(read_json(self._seal.unseal(self._file.read_bytes(), self._file)))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, StoreError) as error:
            link_to_quarantine(self._file, self._file.parent, str(error), f"{self._file.name}.damaged")
            self._damage.add(
                self._file, error, "The settings of /distributed/config have their defaults again"
            )

    def get(self) -> Document:
        return self._settings

    def update(self, change: Callable[[Document], Document]) -> None:
        with self._lock:
            changed = change(self._settings)
            try:
                write_atomically(self._file, self._seal.seal(json.dumps(changed).encode()))
            except OSError as error:
                raise StoreError(f"The settings cannot be saved: {error.strerror} ({self._file})") from error
            self._settings = changed
