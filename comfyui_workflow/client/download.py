"""A file that comes over HTTP, into a directory of ours: whole or not at all, and never outside it."""

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from comfyui_workflow.client.documents import OutputDocument
from comfyui_workflow.errors import RemoteFileError, StoreError
from comfyui_workflow.files.atomic_placement import (
    check_wholeness,
    place_atomically,
    safe_relative_path,
)
from comfyui_workflow.files.partial_files import remove
from comfyui_workflow.runs.model import OutputFile

SomeOutput = TypeVar("SomeOutput", bound=OutputDocument)
Stream = Callable[[SomeOutput, int], AbstractContextManager[Iterator[bytes]]]
"""The content of an output, by where it is in the list."""


def land_outputs(outputs: Sequence[SomeOutput], directory: Path, stream: Stream[SomeOutput]) -> list[Path]:
    """Raises: RemoteFileError when the server has not got all of them, after those that it has; as `land`."""
    paths = []
    for number, output in enumerate(outputs):
        if output.downloaded:
            landing_place(_file(output))  # what is refused is not even asked for
            with stream(output, number) as pieces:
                paths.append(land(pieces, _file(output), directory))
    missing = [output.filename for output in outputs if not output.downloaded]
    if missing:
        raise RemoteFileError(f"The server has not got {len(missing)} outputs: {', '.join(missing)}")
    return paths


def land(pieces: Iterable[bytes], output: OutputFile, directory: Path) -> Path:
    """Where it is now: below `directory` by its subfolder and name; `name (1).png` where a different file of
    that name is. Raises: RemoteFileError for a name that leads elsewhere, and for half a file; StoreError;
    what `pieces` raises."""
    relative = landing_place(output)
    part = directory / f".comfyui_workflow_{secrets.token_hex(8)}.part"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            for piece in pieces:
                file.write(piece)
        check_wholeness(part, output)
        return place_atomically(part, directory / relative)
    except OSError as error:
        reason = error.strerror or error
        raise StoreError(f"{output.filename} cannot be written to {directory}: {reason}") from error
    finally:
        remove(part)


def landing_place(output: OutputFile) -> Path:
    """Below whatever directory. Raises: RemoteFileError."""
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
