"""ComfyUI's file names: directory and next number for a prefix, and the file behind a loaded name."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from comfyui_workflow.sandbox.node import Folders

_SUFFIXES = {" [output]": "output", " [temp]": "temp", " [input]": "input"}


@dataclass(frozen=True, kw_only=True)
class SaveTarget:
    """Directory and name for the next files of a prefix, and the number of the first file."""

    directory: Path
    subfolder: str
    name: str
    counter: int

    def file_name(self, extension: str, index: int = 0) -> str:
        """Returns the name of the `index`-th file of a batch."""
        return f"{self.name.replace('%batch_num%', str(index))}_{self.counter + index:05}_.{extension}"


def find_save_target(
    root: Path, prefix: str, *, width: int = 0, height: int = 0, now: time.struct_time | None = None
) -> SaveTarget:
    """Creates the directory of the prefix, and finds the next free number in it.

    Raises: ValueError, if the prefix leads out of `root`.
    """
    path = os.path.normpath(_replace_placeholders(prefix, width, height, now or time.localtime()))
    if _leads_outside(path):
        raise ValueError(f"Saving image outside the output folder is not allowed: {prefix!r}")
    subfolder, name = os.path.split(path)
    directory = root / subfolder
    directory.mkdir(parents=True, exist_ok=True)
    return SaveTarget(
        directory=directory, subfolder=subfolder, name=name, counter=_next_counter(directory, name)
    )


def file_to_load(folders: Folders, name: str) -> Path | None:
    """Returns the file for "name.png", "sub/name.png" or "name.png [output]"; None if it does not exist."""
    root = folders.input_dir
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            name, root = name.removesuffix(suffix), folders.of_type(kind) or root
    path = root / name
    if _leads_outside(os.path.normpath(name)) or not path.is_file():
        return None
    return path


def _leads_outside(path: str) -> bool:
    return Path(path).is_absolute() or ".." in Path(path).parts


def _replace_placeholders(prefix: str, width: int, height: int, now: time.struct_time) -> str:
    for placeholder, value in {
        "%width%": str(width),
        "%height%": str(height),
        "%year%": str(now.tm_year),
        "%month%": f"{now.tm_mon:02}",
        "%day%": f"{now.tm_mday:02}",
        "%hour%": f"{now.tm_hour:02}",
        "%minute%": f"{now.tm_min:02}",
        "%second%": f"{now.tm_sec:02}",
    }.items():
        prefix = prefix.replace(placeholder, value)
    return prefix


def _next_counter(directory: Path, name: str) -> int:
    start = name + "_"
    numbers = (
        p.name.removeprefix(start).split("_")[0] for p in directory.iterdir() if p.name.startswith(start)
    )
    return max((int(number) for number in numbers if number.isdecimal()), default=0) + 1
