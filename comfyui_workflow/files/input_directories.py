"""Files of a directory that is an input: the frames of a video, a set of pictures."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from comfyui_workflow.errors import FileRefused

MOST_FILES = 10_000
_LEFT_BY_SYSTEMS = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


def files_in(directory: Path) -> list[Path]:
    """Returns the files of a directory and its subdirectories, sorted by path. Left out are hidden files,
    files that file managers leave, and links out of the directory. Raises: FileRefused if there are none or
    too many; OSError."""
    found = sorted(islice(_walk(directory), MOST_FILES + 1))
    if not found:
        raise FileRefused(f"Input directory has no files: {directory}")
    if len(found) > MOST_FILES:
        raise FileRefused(f"Input directory has more than {MOST_FILES} files: {directory}")
    return found


def _walk(directory: Path) -> Iterator[Path]:
    root = directory.resolve()
    for parent, subdirectories, names in os.walk(directory, onerror=_raise):
        subdirectories[:] = sorted(name for name in subdirectories if _is_wanted(name))
        for name in filter(_is_wanted, names):
            path = Path(parent, name)
            if path.is_file() and path.resolve().is_relative_to(root):
                yield path


def _is_wanted(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _LEFT_BY_SYSTEMS


def _raise(error: OSError) -> None:
    raise error
