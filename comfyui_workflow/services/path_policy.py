"""Files of this machine that requests name: read and written where it is allowed."""

import os
import stat
from collections.abc import Collection, Iterable
from pathlib import Path

from comfyui_workflow.errors import FileRefused, InvalidGraph
from comfyui_workflow.files.file_types import InputKind, kind_of
from comfyui_workflow.files.sensitive_paths import (
    LOOKED_AT_BYTES,
    holds_private_key,
    is_key_name,
    reason_not_to_use,
)
from comfyui_workflow.parsing.untrusted import is_safe_name
from comfyui_workflow.workflows.input_formats import read_workflow_file
from comfyui_workflow.workflows.model import Workflow

LARGEST_WORKFLOW_BYTES = 64 * 1024 * 1024
SENT_HERE = ("uploads", "outputs")
"""Places of the data directory that are not the server's own."""
OWN = ("runs", "jobs", "batches", "webhooks", "secrets", "server.lock", "server_id", "known_hosts",
       "instances.json", "usage.json", "local_ports.json")  # fmt: skip
_PHRASES = {
    InputKind.IMAGE: "pictures",
    InputKind.VIDEO: "films",
    InputKind.AUDIO: "sounds",
    InputKind.MODEL_3D: "3D models",
    InputKind.LATENT: "latents",
    InputKind.TEXT: "texts",
}


class PathPolicy:
    """`None` for directories means any, but for what is private (`private_files`). Symbolic links count as
    where they lead. An input is of one of `kinds` (None: of any) by its content, unless it was sent here by
    a client. `default_output_dir` may be hidden, as directories of the settings may. Nothing of `data_dir`
    that is the server's own is read or written."""

    def __init__(
        self,
        *,
        readable_dirs: Iterable[Path] | None,
        writable_dirs: Iterable[Path] | None,
        kinds: Collection[InputKind] | None = None,
        data_dir: Path | None = None,
        default_output_dir: Path | None = None,
    ) -> None:
        self._readable = _resolved(readable_dirs)
        self._writable = _resolved(writable_dirs)
        self._kinds = kinds
        self._data_dir = None if data_dir is None else data_dir.expanduser().resolve()
        sent_here = () if self._data_dir is None else [self._data_dir / name for name in SENT_HERE]
        places = _resolved([] if default_output_dir is None else [default_output_dir]) or ()
        self._uploads = sent_here[0] if sent_here else None
        self._read_roots = (*(self._readable or ()), *sent_here, *places)
        self._write_roots = (*(self._writable or ()), *sent_here[1:], *places)

    def read_workflow(self, path: str) -> Workflow:
        """From JSON in either format, or a picture. Raises: FileRefused, InvalidGraph."""
        local = self._readable_file(path, "Workflow file")
        try:
            if local.stat().st_size > LARGEST_WORKFLOW_BYTES:
                raise InvalidGraph(f"Failed to parse workflow: {path} is too large to be one")
            return read_workflow_file(local.read_bytes())
        except OSError as error:
            raise FileRefused(f"Workflow file cannot be read: {path} ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise InvalidGraph(f"Failed to parse workflow: {path} is not JSON ({error})") from error

    def input_image(self, path: str) -> str:
        """The absolute path of an image that can be read now. Raises: FileRefused."""
        local = self._readable_file(path, "Input image")
        if not os.access(local, os.R_OK):
            raise FileRefused(f"Input image cannot be read: {path} (permission denied)")
        self._refuse_content(local, path)
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
        self._refuse_private(local, path, "Output directory", self._write_roots)
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            raise FileRefused(f"Output directory cannot be written: {path} ({there} does not allow it)")
        return str(_as_given(path))

    def _readable_file(self, path: str, what: str) -> Path:
        """Where reading is limited, a path outside is refused before it is looked at."""
        local = _absolute(path, what)
        if not (_is_within(local, self._readable) or self._was_sent_here(local)):
            raise FileRefused(f"{what} is not allowed: {path}{_allowed(self._readable)}")
        self._refuse_private(local, path, what, self._read_roots)
        if is_key_name(local.name) or is_key_name(_as_given(path).name):
            raise FileRefused(f"{what} is not allowed: {path} has the name of a key or of credentials")
        try:
            mode = local.stat().st_mode
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileRefused(f"{what} not found: {path}") from error
        except OSError as error:
            raise FileRefused(f"{what} cannot be read: {path} ({error.strerror})") from error
        if not stat.S_ISREG(mode):
            raise FileRefused(f"{what} is not a file: {path}")
        return local

    def _refuse_private(self, local: Path, path: str, what: str, roots: Iterable[Path]) -> None:
        """Raises: FileRefused."""
        if self._data_dir is not None and local.is_relative_to(self._data_dir):
            parts = local.relative_to(self._data_dir).parts
            if not parts or parts[0] in OWN:
                raise FileRefused(f"{what} is not allowed: {path} is the server's own")
        reason = reason_not_to_use(local, roots)
        if reason is not None:
            raise FileRefused(
                f"{what} is not allowed: {path} ({reason}; directories that COMFYUI_WORKFLOW_READ_DIRS and "
                "COMFYUI_WORKFLOW_WRITE_DIRS name may be such)"
            )

    def _was_sent_here(self, local: Path) -> bool:
        return self._uploads is not None and local.is_relative_to(self._uploads)

    def _refuse_content(self, local: Path, path: str) -> None:
        """Raises: FileRefused."""
        try:
            with local.open("rb") as file:
                if holds_private_key(file.read(LOOKED_AT_BYTES)):
                    raise FileRefused(f"Input image is not allowed: {path} has a private key in it")
            if self._kinds is None or self._was_sent_here(local):
                return
            kind = kind_of(local)
        except OSError as error:
            raise FileRefused(f"Input image cannot be read: {path} ({error.strerror})") from error
        if kind not in self._kinds:
            raise FileRefused(
                f"Input image is not allowed: {path} has none of the contents that ComfyUI loads: "
                f"{', '.join(_PHRASES[each] for each in InputKind if each in self._kinds)}. "
                "COMFYUI_WORKFLOW_INPUT_KINDS allows others; a file that is sent here first may be anything"
            )


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
