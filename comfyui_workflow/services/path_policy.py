"""Access control for local paths in requests: input files, workflow files and output directories."""

import os
import stat
from collections.abc import Collection, Iterable
from pathlib import Path

from comfyui_workflow.errors import FileRefused, InvalidGraph
from comfyui_workflow.files.file_types import InputKind, kind_of
from comfyui_workflow.files.input_directories import files_in
from comfyui_workflow.files.sensitive_paths import (
    LOOKED_AT_BYTES,
    holds_private_key,
    is_key_name,
    reason_not_to_use,
)
from comfyui_workflow.files.spellings import existing_spelling
from comfyui_workflow.parsing.untrusted import is_safe_name
from comfyui_workflow.workflows.input_formats import GivenWorkflow, read_given_stream

CLIENT_ENTRIES = ("uploads", "outputs")
"""Subdirectories of the data directory that requests may name."""
PRIVATE_ENTRIES = ("runs", "jobs", "batches", "webhooks", "secrets", "url_secrets", "logins", "downloads",
                   "server.lock", "server_id", "known_hosts", "instances.json", "usage.json",
                   "local_ports.json")  # fmt: skip
"""Entries of the data directory that only the server itself reads and writes."""
_PHRASES = {
    InputKind.IMAGE: "pictures",
    InputKind.VIDEO: "films",
    InputKind.AUDIO: "sounds",
    InputKind.MODEL_3D: "3D models",
    InputKind.LATENT: "latents",
    InputKind.TEXT: "texts",
}


class PathPolicy:
    """Checks paths before they are read or written.

    `readable_dirs` and `writable_dirs`: None allows every directory except private paths
    (`files/sensitive_paths.py`). Symbolic links are resolved first. The content of an input file must be of
    one of `kinds` (None allows all), unless a client uploaded the file to this server. `default_output_dir`
    may be a hidden directory, and so may the directories of the settings. The private entries of `data_dir`
    are never read or written.
    """

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
        client_dirs = () if self._data_dir is None else [self._data_dir / name for name in CLIENT_ENTRIES]
        defaults = _resolved([] if default_output_dir is None else [default_output_dir]) or ()
        self._uploads = client_dirs[0] if client_dirs else None
        self._read_roots = (*(self._readable or ()), *client_dirs, *defaults)
        self._write_roots = (*(self._writable or ()), *client_dirs[1:], *defaults)

    def read_workflow(self, path: str) -> GivenWorkflow:
        """Reads a workflow from JSON in either format, or from a file that ComfyUI made.

        Raises: FileRefused, InvalidGraph."""
        local = self._readable_file(path, "Workflow file")
        try:
            with local.open("rb") as file:
                return read_given_stream(file)
        except OSError as error:
            raise FileRefused(f"Workflow file cannot be read: {path} ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise InvalidGraph(f"Failed to parse workflow: {path} is not JSON ({error})") from error

    def input_image(self, path: str) -> str:
        """Returns the absolute path of an input that can be read now: a file, or a directory of files, whose
        path then ends with a slash. Raises: FileRefused."""
        local, path = self._existing(path, "Input image")
        if not local.is_dir():
            self._check_input(local, path)
            return str(_as_given(path))
        if self._data_dir is not None and self._data_dir.is_relative_to(local):
            raise FileRefused(f"Input image is not allowed: {path} contains files of the server itself")
        try:
            files = files_in(_as_given(path))
        except OSError as error:
            raise FileRefused(f"Input directory cannot be read: {path} ({error.strerror})") from error
        for each in files:
            self._check_input(self._readable_file(str(each), "Input image"), str(each))
        return f"{_as_given(path)}/"

    def _check_input(self, local: Path, path: str) -> None:
        """Raises: FileRefused."""
        if not stat.S_ISREG(local.stat().st_mode):
            raise FileRefused(f"Input image is not a file: {path}")
        if not os.access(local, os.R_OK):
            raise FileRefused(f"Input image cannot be read: {path} (permission denied)")
        self._refuse_content(local, path)
        if not is_safe_name(_as_given(path).name):
            raise FileRefused(f"Input image has a file name that is not allowed: {_as_given(path).name!r}")

    def output_dir(self, path: str) -> str:
        """Returns the absolute path of an allowed output directory. It may not exist yet: it is created when
        it is needed. Raises: FileRefused."""
        local = _absolute(path, "Output directory")
        if not _is_within(local, self._writable):
            raise FileRefused(f"Output directory is not allowed: {path}{_allowed(self._writable)}")
        try:
            existing = next(path for path in (local, *local.parents) if path.exists())
        except OSError as error:  # the name is too long, or a directory may not be searched
            raise FileRefused(f"Output directory cannot be written: {path} ({error.strerror})") from error
        if existing == local and not local.is_dir():
            raise FileRefused(f"Output directory is a file: {path}")
        self._refuse_private(local, path, "Output directory", self._write_roots)
        if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
            raise FileRefused(f"Output directory cannot be written: {path} ({existing} does not allow it)")
        return str(_as_given(path))

    def _readable_file(self, path: str, what: str) -> Path:
        """Returns the resolved path of a regular file that may be read. Raises: FileRefused."""
        local, path = self._existing(path, what)
        if not local.is_file():
            raise FileRefused(f"{what} is not a file: {path}")
        return local

    def _existing(self, path: str, what: str) -> tuple[Path, str]:
        """Returns (resolved path, path as given) of what may be read. The path is corrected if only another
        spelling exists.

        If reading is limited, a path outside of the allowed directories is refused before it is checked for
        existence. Raises: FileRefused."""
        self._refuse_unreadable(path, what)
        spelled = existing_spelling(path)
        local = _absolute(spelled, what) if spelled == path else self._refuse_unreadable(spelled, what)
        try:
            local.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileRefused(f"{what} not found: {path}") from error
        except OSError as error:
            raise FileRefused(f"{what} cannot be read: {path} ({error.strerror})") from error
        return local, spelled

    def _refuse_unreadable(self, path: str, what: str) -> Path:
        """Returns the resolved path. Raises: FileRefused if it may not be read."""
        local = _absolute(path, what)
        if not (_is_within(local, self._readable) or self._is_upload(local)):
            raise FileRefused(f"{what} is not allowed: {path}{_allowed(self._readable)}")
        self._refuse_private(local, path, what, self._read_roots)
        if is_key_name(local.name) or is_key_name(_as_given(path).name):
            raise FileRefused(f"{what} is not allowed: {path} has the name of a key or of credentials")
        return local

    def _refuse_private(self, local: Path, path: str, what: str, roots: Iterable[Path]) -> None:
        """Refuses the server's own files and private paths outside of `roots`. Raises: FileRefused."""
        if self._data_dir is not None and local.is_relative_to(self._data_dir):
            parts = local.relative_to(self._data_dir).parts
            if not parts or parts[0] in PRIVATE_ENTRIES or local == self._uploads:
                raise FileRefused(f"{what} is not allowed: {path} is the server's own")
        reason = reason_not_to_use(local, roots)
        if reason is not None:
            raise FileRefused(
                f"{what} is not allowed: {path} ({reason}; to allow the directory, name it in "
                "COMFYUI_WORKFLOW_READ_DIRS or COMFYUI_WORKFLOW_WRITE_DIRS)"
            )

    def _is_upload(self, local: Path) -> bool:
        return self._uploads is not None and local.is_relative_to(self._uploads)

    def _refuse_content(self, local: Path, path: str) -> None:
        """Refuses private keys, and kinds of files that are not allowed. Raises: FileRefused."""
        try:
            with local.open("rb") as file:
                if holds_private_key(file.read(LOOKED_AT_BYTES)):
                    raise FileRefused(f"Input image is not allowed: {path} has a private key in it")
            if self._kinds is None or self._is_upload(local):
                return
            kind = kind_of(local)
        except OSError as error:
            raise FileRefused(f"Input image cannot be read: {path} ({error.strerror})") from error
        if kind not in self._kinds:
            raise FileRefused(
                f"Input image is not allowed: {path} is not of a kind that ComfyUI loads: "
                f"{', '.join(_PHRASES[each] for each in InputKind if each in self._kinds)}. "
                "COMFYUI_WORKFLOW_INPUT_KINDS allows other kinds; uploaded files may be of any kind"
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
    """Returns the absolute path. Symbolic links are kept: a graph refers to the file by its given name."""
    return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow them


def _is_within(path: Path, directories: tuple[Path, ...] | None) -> bool:
    return directories is None or any(path.is_relative_to(directory) for directory in directories)


def _allowed(directories: tuple[Path, ...] | None) -> str:
    return "; allowed: " + ", ".join(map(str, directories or ()))
