"""Finds where the file of an output is on the instance.

Nodes name their files in several ways: below one of ComfyUI's directories, with an absolute directory or
name, relative to the output directory but outside of it, with `.` and `..`, with the separators of Windows.
"""

import posixpath
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from comfyui_workflow.comfyui.folders import Directories
from comfyui_workflow.comfyui.shown_results import file_type
from comfyui_workflow.files.sensitive_paths import is_key_name, reason_not_to_use
from comfyui_workflow.runs.model import OutputFile

FOLDERS = ("output", "temp", "input")
_ANNOTATED = re.compile(r"(.*) \[(output|temp|input)\]", re.DOTALL)
_DRIVE = re.compile(r"[A-Za-z]:/")


def located(
    output: OutputFile, directories: Callable[[], Directories], *, has_backslashes: bool = False
) -> OutputFile:
    """Returns the output with a plain file name, and a subfolder below its folder. For a file outside of
    ComfyUI's directories, `folder` becomes the absolute directory on the instance. An output whose place is
    not known stays as it is. `directories` is called only if needed. `has_backslashes`: a backslash is a
    letter of the name, as on Linux; else it separates directories, as on Windows."""
    if output.text is not None:
        return output
    path = _joined(output.subfolder, output.filename, has_backslashes)
    if path in (".", ".."):
        return output
    if not path.startswith(("/", "../")):
        return _at(output, output.folder, path)
    known = directories()
    root = known.of(output.folder)
    if not path.startswith("/"):
        if root is None:
            return output
        path = posixpath.normpath(posixpath.join(root, path))
    return _below(output, path, known) or _outside(output, path)


def candidates(text: str, directories: Directories) -> list[OutputFile]:
    """Returns the places where the file of a shown path may be, the most probable one first. A path without a
    directory name of ComfyUI is relative to the output directory, or to the directory of ComfyUI."""
    annotated = _ANNOTATED.fullmatch(text)
    if annotated is not None:
        named = OutputFile(filename=annotated[1], folder=annotated[2])
        return [_typed(located(named, lambda: directories))]
    first, _, rest = _joined("", text, False).partition("/")
    folders = [folder for folder in FOLDERS if folder == first and rest]
    places = [
        OutputFile(filename=text),
        *(OutputFile(filename=rest, folder=folder) for folder in folders),
        OutputFile(filename=text, folder="temp"),
    ]
    found = (_typed(located(place, lambda: directories)) for place in places)
    return list({place.key: place for place in found}.values())


def is_outside(output: OutputFile) -> bool:
    """True for a file outside of ComfyUI's directories: ComfyUI does not serve it, only SFTP does."""
    return output.folder.startswith("/")


def _joined(subfolder: str, filename: str, has_backslashes: bool) -> str:
    if not has_backslashes:
        subfolder, filename = (part.replace("\\", "/") for part in (subfolder, filename))
    path = posixpath.join(_rooted(subfolder), _rooted(filename))
    return posixpath.normpath(path).replace("//", "/")


def _rooted(path: str) -> str:
    """`C:/x` is `/C:/x` over SFTP."""
    return f"/{path}" if _DRIVE.match(path) else path


def _below(output: OutputFile, path: str, directories: Directories) -> OutputFile | None:
    for folder in (output.folder, *FOLDERS):
        root = directories.of(folder)
        if root is not None and path.startswith(f"{root.rstrip('/')}/"):
            return _at(output, folder, path[len(root.rstrip("/")) + 1 :])
    return None


def _outside(output: OutputFile, path: str) -> OutputFile:
    """Hidden files, keys and files of the system are never an output: the place of such a path stays as it
    is, which is not safe to fetch."""
    if reason_not_to_use(Path(path), ()) is not None or is_key_name(posixpath.basename(path)):
        return output
    directory, name = posixpath.split(path)
    return replace(output, filename=name, subfolder="", folder=directory)


def _at(output: OutputFile, folder: str, path: str) -> OutputFile:
    subfolder, name = posixpath.split(path)
    if (output.filename, output.subfolder, output.folder) == (name, subfolder, folder):
        return output
    return replace(output, filename=name, subfolder=subfolder, folder=folder)


def _typed(output: OutputFile) -> OutputFile:
    return replace(output, file_type=file_type(output.filename))
