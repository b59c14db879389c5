"""Quarantine: unusable files are kept in a separate directory, where a person can inspect them."""

import logging
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from comfyui_workflow.files.atomic_write import make_private_directory

log = logging.getLogger(__name__)

QUARANTINE = "set-aside"
"""Name of a quarantine directory."""


def move_to_quarantine(path: Path, directory: Path, reason: str, name: str | None = None) -> None:
    """Moves a file or directory into the quarantine `directory`. If it cannot be moved, it stays in its
    place."""
    aside = directory / f"{(name or path.name)[:120]}-{time.time_ns()}"
    log.error("Set aside %r as %r: %s", str(path), str(aside), reason)
    try:
        shutil.move(path, aside)
    except OSError as error:
        log.error("%r stays where it is: %s", str(path), error.strerror)


def link_to_quarantine(path: Path, directory: Path, reason: str, name: str) -> None:
    """Adds a hard link in quarantine to a file, which stays in its place until it is replaced. Needs no disk
    space. If the link cannot be made, the file is moved."""
    aside = directory / f"{name[:120]}-{time.time_ns()}"
    with suppress(OSError):  # then os.link fails too, and its fallback logs the reason
        make_private_directory(directory)
    try:
        os.link(path, aside, follow_symlinks=False)
    except OSError:  # a directory, or a file system without links
        move_to_quarantine(path, directory, reason, name)
