"""Saves downloaded files into a local directory: only complete files, and never outside the directory."""

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from comfyui_workflow.client.documents import OutputDocument
from comfyui_workflow.errors import RemoteFileError, StoreError
from comfyui_workflow.files.atomic_placement import (
    check_complete,
    place_atomically,
    safe_relative_path,
)
from comfyui_workflow.files.partial_files import remove
from comfyui_workflow.runs.model import OutputFile

SomeOutput = TypeVar("SomeOutput", bound=OutputDocument)
Stream = Callable[[SomeOutput, int], AbstractContextManager[Iterator[bytes]]]
"""Opens the content of an output; the number is its index in the list."""


def save_outputs(outputs: Sequence[SomeOutput], directory: Path, stream: Stream[SomeOutput]) -> list[Path]:
    """Downloads the outputs and returns their local paths. Raises: RemoteFileError if the server does not
    have all of them (the others are downloaded first); and as `save_file`."""
    paths = []
    for number, output in enumerate(outputs):
        if output.downloaded:
            relative_path(_file(output))  # an unsafe name is refused before the request
            with stream(output, number) as pieces:
                paths.append(save_file(pieces, _file(output), directory))
    missing = [output.filename for output in outputs if not output.downloaded]
    if missing:
        raise RemoteFileError(f"The server does not have {len(missing)} outputs: {', '.join(missing)}")
    return paths


def save_file(pieces: Iterable[bytes], output: OutputFile, directory: Path) -> Path:
    """Writes the file below `directory`, by its subfolder and name, and returns its path. If a different file
    has that name, the new file becomes `name (1).png`.
    Raises: RemoteFileError for an unsafe name and for an incomplete file; StoreError; and what `pieces`
    raises."""
    relative = relative_path(output)
    part = directory / f".comfyui_workflow_{secrets.token_hex(8)}.part"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            for piece in pieces:
                file.write(piece)
        check_complete(part, output)
        return place_atomically(part, directory / relative)
    except OSError as error:
        reason = error.strerror or error
        raise StoreError(f"{output.filename} cannot be written to {directory}: {reason}") from error
    finally:
        remove(part)


def relative_path(output: OutputFile) -> Path:
    """Returns the path of an output below any download directory. Raises: RemoteFileError for an unsafe
    name."""
    relative = safe_relative_path(output)
    if relative is None:
        name = f"{output.subfolder}/{output.filename}"[:300]
        raise RemoteFileError(f"The instance gave a file a name that is not safe to write here: {name!r}")
    return relative


def _file(output: OutputDocument) -> OutputFile:
    return OutputFile(
        filename=output.filename,
        subfolder=output.subfolder,
        folder=output.folder,
        file_type=output.file_type,
    )
