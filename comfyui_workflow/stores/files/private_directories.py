"""The directories of the data directory, closed to other users of this machine."""

import logging
import os
import stat
from pathlib import Path

from comfyui_workflow.errors import ConfigurationError
from comfyui_workflow.files.atomic_write import make_private_directory

log = logging.getLogger(__name__)

PRIVATE = (
    "runs",
    "runs/live",
    "runs/finished",
    "runs/set-aside",
    "uploads",
    "jobs",
    "batches",
    "webhooks",
    "secrets",
)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def close_to_others(data_dir: Path) -> None:
    """Make them with mode 0700, and take every right of others from those that an earlier version has made.
    Raises: ConfigurationError."""
    try:
        for path in (data_dir, *(data_dir / name for name in PRIVATE)):
            make_private_directory(path)
            _close(path)
    except OSError as error:
        raise ConfigurationError(f"The data directory {data_dir} cannot be used: {error.strerror}") from error


def _close(path: Path) -> None:
    """One that is another user's stays as it is, with a warning: its mode is not ours to change.
    Raises: OSError."""
    found = path.stat()
    if not found.st_mode & _OTHERS:
        return
    if found.st_uid != os.geteuid():
        log.warning("%s can be read by others: it belongs to user %d", path, found.st_uid)
        return
    path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
