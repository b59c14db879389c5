"""Creates the directories of the data directory, without access for other users of this machine."""

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
    "logins",
)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def restrict_to_owner(data_dir: Path) -> None:
    """Creates the directories with mode 0700, and removes the permissions of other users from existing ones.
    Raises: ConfigurationError."""
    try:
        for path in (data_dir, *(data_dir / name for name in PRIVATE)):
            make_private_directory(path)
            _close(path)
    except OSError as error:
        raise ConfigurationError(f"The data directory {data_dir} cannot be used: {error.strerror}") from error


def _close(path: Path) -> None:
    """Removes the permissions of other users. A directory of another user is not changed; a warning is
    logged. Raises: OSError."""
    found = path.stat()
    if not found.st_mode & _OTHERS:
        return
    if found.st_uid != os.geteuid():
        log.warning("%s can be read by others: it belongs to user %d", path, found.st_uid)
        return
    path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
