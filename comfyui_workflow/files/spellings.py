"""Spellings of a path: a person or another system may write it otherwise than this machine."""

import unicodedata
from pathlib import Path


def existing_spelling(path: str) -> str:
    """Returns the spelling of the path under which a file exists; the path itself if there is none. Tried
    are the other Unicode form of letters (macOS decomposes them), and `/` for `\\`."""
    spelled = _expanded(path)
    if _exists(spelled):
        return path if str(spelled) == str(Path(path)) else str(spelled)
    candidates = [spelled, *([_expanded(path.replace("\\", "/"))] if "\\" in path else [])]
    return next((str(found) for each in candidates if (found := _by_listing(each)) is not None), path)


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # there is no such user
        return Path(path)


def _by_listing(path: Path) -> Path | None:
    """Looks up each part of the path in the listing of its directory."""
    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        exact = found / part
        if not _exists(exact):
            wanted = unicodedata.normalize("NFC", part)
            try:
                names = [each.name for each in found.iterdir()]
            except OSError:
                return None
            name = next((name for name in names if unicodedata.normalize("NFC", name) == wanted), None)
            if name is None:
                return None
            exact = found / name
        found = exact
    return found


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or not a valid path
        return False
