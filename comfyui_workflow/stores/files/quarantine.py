"""Files that cannot be used, kept in a directory of their own for a person to look at."""

import logging
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from comfyui_workflow.files.atomic_write import make_private_directory

log = logging.getLogger(__name__)

QUARANTINE = "set-aside"
"""Name of such a directory."""


def set_aside(path: Path, directory: Path, reason: str, name: str | None = None) -> None:
    """Move a file or directory into the quarantine `directory`. What cannot be moved stays where it is."""
    aside = directory / f"{(name or path.name)[:120]}-{time.time_ns()}"
    log.error("Set aside %r as %r: %s", str(path), str(aside), reason)
    try:
        shutil.move(path, aside)
    except OSError as error:
        log.error("%r stays where it is: %s", str(path), error.strerror)


def keep_aside(path: Path, directory: Path, reason: str, name: str) -> None:
    """As `set_aside`, but the file stays in its place, too, until another one replaces it: needs no room."""
    aside = directory / f"{name[:120]}-{time.time_ns()}"
    with suppress(OSError):  # then the link says what is wrong
        make_private_directory(directory)
    try:
        os.link(path, aside, follow_symlinks=False)
    except OSError:  # a directory, or a file system without links
        set_aside(path, directory, reason, name)
