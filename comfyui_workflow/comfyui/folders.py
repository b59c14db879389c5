"""Derives the directories of a ComfyUI from its responses: no route names them directly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from posixpath import normpath
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
    """Reads `/internal/folder_paths` (`{kind: [path]}`) and the `argv` of `/system_stats`. The command line
    has precedence, since directories of models and custom nodes may belong to another ComfyUI. The paths are
    those that ComfyUI sees, and some are guesses: the caller must check each file."""
    words = [word for word in argv if isinstance(word, str)] if isinstance(argv, list) else []
    nodes_base = _custom_nodes_base(folder_paths)
    start_dir = _start_dir(words, nodes_base)
    base, given_input, given_output, given_temp = (
        _option(words, f"--{name}-directory", start_dir) for name in ("base", "input", "output", "temp")
    )
    base = base or (_program_dir(words) if base is None else None) or nodes_base
    return Directories(
        input_dir=_below(base, "input") if given_input is None else given_input or None,
        output_dir=given_output
        or _output(folder_paths)
        or (_below(base, "output") if given_output is None else None),
        temp_dir=_below(base if given_temp is None else given_temp or None, "temp"),  # it names the parent
    )


def _program_dir(words: Sequence[str]) -> str | None:
    """Returns the directory of `main.py`: the base directory, unless an option names another."""
    program = PurePosixPath(words[0]) if words else PurePosixPath()
    return str(program.parent) if program.is_absolute() and program.name == "main.py" else None


def _start_dir(words: Sequence[str], nodes_base: str | None) -> str | None:
    """Returns the directory that ComfyUI was started in, which relative options count from. It is known only
    for `python main.py`."""
    has_base = any(word.partition("=")[0] == "--base-directory" for word in words)
    return nodes_base if words[:1] == ["main.py"] and not has_base else None


def _custom_nodes_base(folder_paths: Mapping[str, Any]) -> str | None:
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


def _option(words: Sequence[str], name: str, start_dir: str | None) -> str | None:
    """Returns the absolute path of the last `--name value` or `--name=value`; "" if it is relative to an
    unknown directory, None if there is no such option."""
    values = [after for word, after in pairwise(words) if word == name]
    values += [word.partition("=")[2] for word in words if word.startswith(f"{name}=")]
    if not values or not values[-1]:
        return None
    if not _is_absolute(values[-1]) and start_dir is None:
        return ""
    return normpath(str(PurePosixPath(start_dir or "/", values[-1])))


def _below(directory: str | None, name: str) -> str | None:
    return None if directory is None else str(PurePosixPath(directory) / name)


def _is_absolute(path: object) -> bool:
    return isinstance(path, str) and path.startswith("/")
