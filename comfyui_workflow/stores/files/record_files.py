"""Directory of small records, each in a sealed JSON file `<name>.json`."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from comfyui_workflow.errors import ConfigurationError, StoreError
from comfyui_workflow.files.atomic_write import make_private_directory, write_atomically
from comfyui_workflow.stores.base import UnreadableRecord
from comfyui_workflow.stores.files.quarantine import QUARANTINE, link_to_quarantine
from comfyui_workflow.stores.files.record_format import RecordFormat

T = TypeVar("T")


class RecordFiles:
    """See the module. Thread-safe."""

    def __init__(self, directory: Path, kind: str, seal: RecordFormat) -> None:
        """`kind` is the word for a record in error messages."""
        self._directory = directory
        self._kind = kind
        self._seal = seal

    def open(self) -> None:
        """Raises: ConfigurationError."""
        try:
            make_private_directory(self._directory)
        except OSError as error:
            raise self._cannot_use(error) from error

    def path_of(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def read_all(
        self, names: re.Pattern[str], decode: Callable[[bytes], T], name_of: Callable[[T], str]
    ) -> Iterator[tuple[str, T | UnreadableRecord]]:
        """Yields every record whose file name matches `names`, in the order of the names.
        Raises: ConfigurationError, also if a newer release has written a record."""
        try:
            found = sorted(self._directory.glob("*.json"))
        except OSError as error:
            raise self._cannot_use(error) from error
        for path in found:
            if names.fullmatch(path.stem):
                read: T | UnreadableRecord = self._read(path, decode, name_of)
                yield path.stem, read

    def write(self, name: str, record: bytes) -> None:
        """Writes a record, on disk when this returns. Raises: StoreError."""
        try:
            write_atomically(self.path_of(name), self._seal.seal(record))
        except OSError as error:
            raise StoreError(f"The {self._kind} cannot be saved: {error.strerror}") from error

    def remove(self, name: str) -> None:
        """Raises: StoreError."""
        try:
            self.path_of(name).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"The {self._kind} cannot be removed: {error.strerror}") from error

    def link_to_quarantine(self, name: str, reason: str) -> None:
        """Links a damaged file into quarantine. It also stays in its place until it is replaced."""
        path = self.path_of(name)
        link_to_quarantine(path, self._directory / QUARANTINE, reason, path.name)

    def _read(
        self, path: Path, decode: Callable[[bytes], T], name_of: Callable[[T], str]
    ) -> T | UnreadableRecord:
        """Raises: NewerRecord."""
        try:
            record = decode(self._seal.read(path))
            if name_of(record) != path.stem:
                raise StoreError(f"it is the record of another {self._kind}")
        except (StoreError, OSError) as error:
            return UnreadableRecord(path=str(path), reason=str(error))
        return record

    def _cannot_use(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(f"{self._directory} cannot be used: {error.strerror}")
