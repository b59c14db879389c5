"""Secrets of runs: API keys of Comfy.org, and credentials for URLs. Each is in its own file: an API key until
ComfyUI has accepted the prompt or the run has ended, credentials until no step needs them. A secret is never
in a record, and is not kept in memory meanwhile.

    DATA_DIR/secrets/<run_id>           API keys
    DATA_DIR/url_secrets/<run_id>       credentials
"""

import json
import logging
import os
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from comfyui_workflow.errors import ConfigurationError, StoreError
from comfyui_workflow.files.atomic_write import (
    make_private_directory,
    read_regular,
    write_atomically,
)
from comfyui_workflow.files.disk_flush import flush_to_disk
from comfyui_workflow.runs.model import is_run_id
from comfyui_workflow.stores.files.quarantine import QUARANTINE

log = logging.getLogger(__name__)

MARK = "earlier-keys-removed"
"""File that marks a data directory whose records of earlier versions have no keys any more."""
_FIELD = "comfy_org_api_key"
_IN_RECORD = b'"comfy_org_api_key":"'


class ApiKeys:
    """See the module. Thread-safe. Without a directory no key is kept."""

    def __init__(self, directory: Path | None = None, what: str = "The API key of the run") -> None:
        """`what`: the begin of error messages."""
        self._directory = directory
        self._what = what

    def put(self, run_id: str, key: str) -> None:
        """Saves a key, on disk when this returns. Raises: StoreError."""
        self.put_all({run_id: key})

    def put_all(self, keys: Mapping[str, str]) -> None:
        """Saves the key of each run, on disk when this returns. The runs of a batch mostly have one key: its
        files are links to the first one, which is much faster. Raises: StoreError; then none is kept."""
        if self._directory is None or not keys:
            return
        first: dict[str, Path] = {}
        try:
            make_private_directory(self._directory)
            for run_id, key in keys.items():
                path = self._directory / run_id
                if key not in first or not _is_linked(first[key], path):
                    write_atomically(path, key.encode())
                first.setdefault(key, path)
            flush_to_disk([self._directory])
        except OSError as error:
            for run_id in keys:
                self.forget(run_id)
            raise StoreError(f"{self._what} cannot be saved: {error.strerror}") from error

    def get(self, run_id: str) -> str | None:
        """Returns the key; None if the run has none, or it was removed."""
        if self._directory is None:
            return None
        try:
            return read_regular(self._directory / run_id).decode()
        except (OSError, UnicodeDecodeError):
            return None

    def forget(self, run_id: str) -> None:
        """Removes a key. A failure is logged as an error, and the next start tries again."""
        if self._directory is None:
            return
        try:
            (self._directory / run_id).unlink()
            flush_to_disk([self._directory])
        except FileNotFoundError:
            return
        except OSError as error:
            log.error("%s %s cannot be removed: %s", self._what, run_id, error.strerror)

    def keep_only(self, run_ids: Collection[str]) -> None:
        """Removes the keys of all other runs. Called at the start: a crashed server may have left some."""
        for path in self._files():
            if path.name not in run_ids:
                self.forget(path.name)

    def run_ids(self, within_s: float) -> list[str]:
        """Returns the runs whose secrets were saved at most so many seconds ago."""
        oldest_s = time.time() - within_s
        return [path.name for path in self._files() if path.stat().st_mtime >= oldest_s]

    def move_keys_from_records(self, runs: Path) -> None:
        """Removes the keys that an earlier version wrote into records. Keys of live runs are moved to files.
        Done once for each data directory. Raises: ConfigurationError."""
        if self._directory is None:
            return
        try:
            make_private_directory(self._directory)
            if (self._directory / MARK).exists():
                return
            for directory in ("live", "finished", QUARANTINE):
                for path in (runs / directory).glob("*/request.json"):
                    self._take_from(path, is_live=directory == "live")
            write_atomically(self._directory / MARK, b"")
        except (OSError, StoreError) as error:
            raise ConfigurationError(f"API keys of earlier runs cannot be removed: {error}") from error

    def _take_from(self, path: Path, *, is_live: bool) -> None:
        """Raises: OSError, StoreError."""
        with suppress(ValueError):  # not a record: it is never read
            content = read_regular(path)
            if _IN_RECORD not in content:
                return
            request: dict[str, Any] = json.loads(content)
            key = request.pop(_FIELD, None)
            if is_live and isinstance(key, str) and is_run_id(path.parent.name):
                self.put(path.parent.name, key)
            changed = {**request, "has_comfy_org_api_key": True}
            write_atomically(path, json.dumps(changed, ensure_ascii=False, separators=(",", ":")).encode())

    def _files(self) -> list[Path]:
        if self._directory is None:
            return []
        try:
            return [path for path in self._directory.iterdir() if path.name != MARK]
        except FileNotFoundError:
            return []


def _is_linked(source: Path, target: Path) -> bool:
    """Makes a second name for a file. False if the file system does not support this, or not so many."""
    try:
        os.link(source, target)
    except OSError as error:
        log.debug("%s is written again: %s", source.name, error.strerror)
        return False
    return True
