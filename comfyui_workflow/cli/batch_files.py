"""Local files that the rows of a batch name: they are uploaded, and the rows get their remote names."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from comfyui_workflow.cli.batch_rows import Row
from comfyui_workflow.files.spellings import existing_spelling
from comfyui_workflow.parsing.storage_urls import is_storage_url
from comfyui_workflow.workflows.model_files import is_model

_FILE_NAME = re.compile(r"[^\n\r]{1,4096}\.[A-Za-z0-9]{1,10}")
_TEXT_ENDINGS = (".txt", ".md")
"""Such a value can be the text itself."""
_DIRECTORY_PATH = re.compile(r"(~|\.{1,2}|[A-Za-z]:)?[/\\][^\n\r]*|[^\n\r]*[/\\]")
"""A path that cannot be a prefix of output names: it begins or ends with a slash."""
_DIRECTORY_WORDS = frozenset({"directory", "dir", "folder", "path"})


def collect_files(rows: Sequence[Row], directories: Sequence[Path]) -> tuple[list[Row], list[Path]]:
    """Returns the rows with file names in place of paths, and the files and directories. If several have the
    same name, the rows keep the path. Relative paths are looked up in each of `directories`. A value that is
    not a local file is not changed: the instance may have the file."""
    files: dict[Path, None] = {}

    @cache
    def find(text: str) -> Path | None:
        candidates = (Path(existing_spelling(str(directory / text))) for directory in directories)
        own = Path(existing_spelling(text)) if text.startswith("~") else None
        return next((path for path in (own, *candidates) if path is not None and _exists(path)), None)

    def local_path(name: str, value: Any) -> Any:
        path = find(value) if isinstance(value, str) and _may_be_path(name, value) else None
        if path is None or (path.is_dir() and not _may_be_directory(name, value)):
            return value
        files[path] = None
        return path

    found = [{name: local_path(name, value) for name, value in row.items()} for row in rows]
    names = [path.name for path in files]
    unique = {path: path.name for path in files if names.count(path.name) == 1}

    def shortened(value: Any) -> Any:
        return unique.get(value, value) if isinstance(value, Path) else value

    return [{name: shortened(value) for name, value in row.items()} for row in found], list(files)


def urls_in(rows: Sequence[Row]) -> list[str]:
    """Returns the values that are URLs of files: the server downloads them."""
    values = dict.fromkeys(value for row in rows for value in row.values() if isinstance(value, str))
    return [each for each in values if is_storage_url(each) and _FILE_NAME.fullmatch(each.partition("?")[0])]


def _may_be_path(name: str, value: str) -> bool:
    is_file = _FILE_NAME.fullmatch(value) is not None and not value.lower().endswith(_TEXT_ENDINGS)
    return (is_file and not is_model(value)) or _may_be_directory(name, value)


def _may_be_directory(name: str, value: str) -> bool:
    """True if the value is written as a path, or the input is called a directory. Other values, such as a
    prefix of output names, only happen to be the name of a local directory."""
    words = re.split("[._ ]", name.lower())
    return _DIRECTORY_PATH.fullmatch(value) is not None or not _DIRECTORY_WORDS.isdisjoint(words[1:])


def _exists(path: Path) -> bool:
    try:
        return path.is_file() or path.is_dir()
    except (OSError, ValueError):  # the text is not a valid path
        return False
