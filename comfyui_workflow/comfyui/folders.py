"""Derives the directories of a ComfyUI from its responses: no route names them directly."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

_ALSO_BELOW_OUTPUT = ("checkpoints", "loras", "vae", "diffusion_models")
"""Model kinds for which ComfyUI also searches a directory of that name below its output directory."""


@dataclass(frozen=True, kw_only=True)
class Directories:
    """Absolute paths on the instance; None if they are not known."""

    input_dir: str | None = None
    output_dir: str | None = None
    temp_dir: str | None = None

    def of(self, folder: str) -> str | None:
        return {"input": self.input_dir, "output": self.output_dir, "temp": self.temp_dir}.get(folder)


def read_directories(folder_paths: Mapping[str, Any], argv: object) -> Directories:
    """Reads `/internal/folder_paths` (`{kind: [path]}`) and the `argv` of `/system_stats`. Without a
    command-line option the paths are a guess, and the caller must check them."""
    base = _base(folder_paths)
    given = {name: _option(argv, f"--{name}-directory") for name in ("input", "output", "temp")}
    temp = given["temp"] or base
    return Directories(
        input_dir=given["input"] or _below(base, "input"),
        output_dir=given["output"] or _output(folder_paths) or _below(base, "output"),
        temp_dir=_below(temp, "temp"),  # the option names the parent directory
    )


def _base(folder_paths: Mapping[str, Any]) -> str | None:
    nodes = [
        path for path in _paths(folder_paths, "custom_nodes") if PurePosixPath(path).name == "custom_nodes"
    ]
    return str(PurePosixPath(nodes[0]).parent) if nodes else None


def _output(folder_paths: Mapping[str, Any]) -> str | None:
    """Returns the one parent directory that all these kinds share, other than a directory named `models`."""
    parents = [
        {
            str(PurePosixPath(path).parent)
            for path in _paths(folder_paths, kind)
            if PurePosixPath(path).name == kind
        }
        for kind in _ALSO_BELOW_OUTPUT
    ]
    shared = {parent for parent in set.intersection(*parents) if PurePosixPath(parent).name != "models"}
    return shared.pop() if len(shared) == 1 else None


def _paths(folder_paths: Mapping[str, Any], kind: str) -> list[str]:
    paths = folder_paths.get(kind)
    return [path for path in paths if _is_absolute(path)] if isinstance(paths, list) else []


def _option(argv: object, name: str) -> str | None:
    """Returns the value of `--name value` or `--name=value`. Relative paths are ignored: their base is not
    known."""
    words = [word for word in argv if isinstance(word, str)] if isinstance(argv, list) else []
    values = [after for word, after in pairwise(words) if word == name]
    values += [word.partition("=")[2] for word in words if word.startswith(f"{name}=")]
    return values[-1] if values and _is_absolute(values[-1]) else None


def _below(directory: str | None, name: str) -> str | None:
    return None if directory is None else str(PurePosixPath(directory) / name)


def _is_absolute(path: object) -> bool:
    return isinstance(path, str) and path.startswith("/")
