"""Local input files that the rows of a batch name: they are uploaded, and the rows get their remote names."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from comfyui_workflow.cli.batch_rows import Row

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
VIDEOS_AND_SOUNDS = (".mp4", ".webm", ".mov", ".mkv", ".wav", ".mp3", ".flac", ".ogg", ".opus")


def collect_files(rows: Sequence[Row], directories: Sequence[Path]) -> tuple[list[Row], list[Path]]:
    """Returns the rows with file names in place of paths, and the files. Relative paths are looked up in each
    of `directories`. A value that is not a local file is not changed: the instance may have the file."""
    files: dict[Path, None] = {}

    @cache
    def find(text: str) -> Path | None:
        return next((path for directory in directories if _is_file(path := directory / text)), None)

    def replace_path(value: Any) -> Any:
        is_path = isinstance(value, str) and value.lower().endswith(PICTURES + VIDEOS_AND_SOUNDS)
        path = find(value) if is_path else None
        if path is None:
            return value
        files[path] = None
        return path.name

    return [{name: replace_path(value) for name, value in row.items()} for row in rows], list(files)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # the text is not a valid path
        return False
