"""Input files that the rows of a batch name by their path here: they go along, and get their name there."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from comfyui_workflow.cli.batch_rows import Row

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
FILMS_AND_SOUNDS = (".mp4", ".webm", ".mov", ".mkv", ".wav", ".mp3", ".flac", ".ogg", ".opus")


def bring_files(rows: Sequence[Row], places: Sequence[Path]) -> tuple[list[Row], list[Path]]:
    """The rows with names in the place of paths, and the files. A path may start from any of `places`; what
    is not there stays as it is: the instance may have it."""
    files: dict[Path, None] = {}

    @cache
    def find(text: str) -> Path | None:
        return next((path for place in places if _is_file(path := place / text)), None)

    def named(value: Any) -> Any:
        is_path = isinstance(value, str) and value.lower().endswith(PICTURES + FILMS_AND_SOUNDS)
        path = find(value) if is_path else None
        if path is None:
            return value
        files[path] = None
        return path.name

    return [{name: named(value) for name, value in row.items()} for row in rows], list(files)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that no path can be
        return False
