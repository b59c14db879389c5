"""Gives a downloaded file its final name: complete, never over a different file, never outside the
directory."""

import errno
import filecmp
import os
import re
from collections.abc import Sequence
from pathlib import Path

from comfyui_workflow.errors import RemoteFileError
from comfyui_workflow.files.disk_flush import flush_to_disk
from comfyui_workflow.files.signatures import HEAD_BYTES, mismatch
from comfyui_workflow.files.truncation_check import shortfall
from comfyui_workflow.parsing.untrusted import is_safe_name
from comfyui_workflow.runs.model import OutputFile

_LONGEST_NAME_BYTES = 255
_LONGEST_SUFFIX_BYTES = 32
_DEEPEST_FOLDER = 64
_PART = re.compile(r"\.comfyui_workflow_.*\.part", re.DOTALL)
"""Name of a partial download. An output with such a name is refused, as it would be taken for one."""


def safe_relative_path(output: OutputFile) -> Path | None:
    """Returns the path of an output below the output directory; None if its name or subfolder is not safe. A
    backslash separates directories: it does so on Windows, where the workflow or the user may come from.

    A dot at the start of a name becomes `_`: an instance must not create hidden files, which configure
    programs (`.bashrc`, `.config/autostart`)."""
    parts = [*filter(None, re.split(r"[/\\]", output.subfolder)), *output.filename.split("\\")]
    if output.subfolder.startswith("/") or not all(map(is_safe_name, parts)):
        return None
    if len(parts) > _DEEPEST_FOLDER or any(map(_is_invalid_name, parts)) or _PART.fullmatch(parts[-1]):
        return None
    return Path(*map(_visible, parts))


def _visible(name: str) -> str:
    return "_" + name[1:] if name.startswith(".") else name


def check_complete(part: Path, output: OutputFile) -> None:
    """Checks that a file is complete and has the format of its name. Raises: RemoteFileError, OSError."""
    with part.open("rb") as file:
        head = file.read(HEAD_BYTES)
    reason = mismatch(head, output.filename) or shortfall(part, output.file_type)
    if reason is not None:
        raise RemoteFileError(reason)


def place_atomically(part: Path, wanted: Path) -> Path:
    """Gives a complete file its final name, and returns that path.

    The content is flushed first, so after a power cut the name never has partial content. If `wanted` exists
    with the same content, it is the result. If it has other content, it stays, and the new file is called
    `name (1).png`. A name that would become too long is shortened. Raises: OSError."""
    # else a power cut could leave an empty file, which a retry takes for a different one
    flush_to_disk([part])
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for number in range(10_000):
        path = wanted if number == 0 else wanted.with_name(_numbered(wanted, number))
        if _claim(part, path) or _is_same(part, path):
            return path
    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), str(wanted))


def _numbered(wanted: Path, number: int) -> str:
    suffix = wanted.suffix if len(wanted.suffix.encode()) <= _LONGEST_SUFFIX_BYTES else ""
    stem, ending = wanted.name.removesuffix(suffix), f" ({number}){suffix}"
    most_bytes = _LONGEST_NAME_BYTES - len(ending.encode())
    return stem.encode()[:most_bytes].decode(errors="ignore") + ending


def flush_placed(files: Sequence[Path], directory: Path) -> None:
    """Flushes files below the directory, with their names and the directories that were made for them.
    Raises: OSError."""
    folders = {folder for file in files for folder in file.parents if folder.is_relative_to(directory)}
    flush_to_disk([*files, *folders, *({directory.parent} if files else ())])


def _is_invalid_name(name: str) -> bool:
    try:
        return len(name.encode()) > _LONGEST_NAME_BYTES
    except UnicodeEncodeError:  # a lone surrogate
        return True


def _claim(part: Path, path: Path) -> bool:
    """Gives the file a second name, with a hard link: unlike a rename, this fails if the name exists.
    Returns False if it exists. Raises: OSError."""
    try:
        os.link(part, path, follow_symlinks=False)
    except FileExistsError:
        return False
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        return _claim_by_creation(part, path)
    return True


def _claim_by_creation(part: Path, path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    try:
        part.replace(path)
    except OSError:
        path.unlink()
        raise
    return True


def _is_same(part: Path, path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and filecmp.cmp(part, path, shallow=False)
