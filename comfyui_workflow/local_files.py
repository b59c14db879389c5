"""Files of this machine that requests name: read and written where it is allowed."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from comfyui_workflow.errors import FileRefused, InvalidGraph
from comfyui_workflow.untrusted import is_safe_name
from comfyui_workflow.workflows.given import GivenWorkflow, read_given_file

LARGEST_WORKFLOW_BYTES = 64 * 1024 * 1024


class LocalFiles:
    """`None` for directories means any. Symbolic links count as where they lead."""

    def __init__(self, *, readable_dirs: Iterable[Path] | None, writable_dirs: Iterable[Path] | None) -> None:
        self._readable = _resolved(readable_dirs)
        self._writable = _resolved(writable_dirs)

    def read_workflow(self, path: str) -> GivenWorkflow:
        """From JSON in either format, or a picture. Raises: FileRefused, InvalidGraph."""
        local = self._readable_file(path, "Workflow file")
        try:
            if local.stat().st_size > LARGEST_WORKFLOW_BYTES:
                raise InvalidGraph(f"Failed to parse workflow: {path} is too large to be one")
            return read_given_file(local.read_bytes())
        except OSError as error:
            raise FileRefused(f"Workflow file cannot be read: {path} ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise InvalidGraph(f"Failed to parse workflow: {path} is not JSON ({error})") from error

    def input_image(self, path: str) -> str:
        """The absolute path of an image that can be read now. Raises: FileRefused."""
        local = self._readable_file(path, "Input image")
        if not os.access(local, os.R_OK):
            raise FileRefused(f"Input image cannot be read: {path} (permission denied)")
        if not is_safe_name(_as_given(path).name):
            raise FileRefused(f"Input image has a name that no instance takes: {_as_given(path).name!r}")
        return str(_as_given(path))

    def output_dir(self, path: str) -> str:
        """The absolute path of a directory that outputs may go to; made when it is needed.
        Raises: FileRefused."""
        local = _absolute(path, "Output directory")
        if not _is_within(local, self._writable):
            raise FileRefused(f"Output directory is not allowed: {path}{_allowed(self._writable)}")
        try:
            there = next(place for place in (local, *local.parents) if place.exists())
        except OSError as error:  # a name that is too long, a directory that may not be looked into
            raise FileRefused(f"Output directory cannot be written: {path} ({error.strerror})") from error
        if there == local and not local.is_dir():
            raise FileRefused(f"Output directory is a file: {path}")
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            raise FileRefused(f"Output directory cannot be written: {path} ({there} does not allow it)")
        return str(_as_given(path))

    def _readable_file(self, path: str, what: str) -> Path:
        """Where reading is limited, a path outside is refused before it is looked at."""
        local = _absolute(path, what)
        if not _is_within(local, self._readable):
            raise FileRefused(f"{what} is not allowed: {path}{_allowed(self._readable)}")
        try:
            mode = local.stat().st_mode
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileRefused(f"{what} not found: {path}") from error
        except OSError as error:
            raise FileRefused(f"{what} cannot be read: {path} ({error.strerror})") from error
        if not stat.S_ISREG(mode):
            raise FileRefused(f"{what} is not a file: {path}")
        return local


def _resolved(directories: Iterable[Path] | None) -> tuple[Path, ...] | None:
    return None if directories is None else tuple(Path(d).expanduser().resolve() for d in directories)


def _absolute(path: str, what: str) -> Path:
    if "\0" in path or not path.strip():
        raise FileRefused(f"{what} not found: {path!r}")
    try:
        return Path(path).expanduser().resolve()
    except (OSError, RuntimeError) as error:
        raise FileRefused(f"{what} not found: {path}") from error


def _as_given(path: str) -> Path:
    """Absolute, but symbolic links as they are: a graph knows a file by the name it was given under."""
    return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow them


def _is_within(path: Path, directories: tuple[Path, ...] | None) -> bool:
    return directories is None or any(path.is_relative_to(directory) for directory in directories)


def _allowed(directories: tuple[Path, ...] | None) -> str:
    return "; allowed: " + ", ".join(map(str, directories or ()))
