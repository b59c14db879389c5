"""Typed readers for the fields of user input. All raise InvalidRequest, which names the field."""

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import SequenceMatcher
from itertools import islice
from typing import Any

from comfyui_workflow.errors import InvalidRequest

Fields = Mapping[str, Any]

LONGEST_SHOWN = 64
NEAR = 0.6
"""Minimum similarity (0 to 1) of a known field that an error message suggests."""
MISSPELLED = 0.75
"""Minimum similarity of a field that is taken for a misspelled one."""
PART = 0.7
"""Similarity of a field whose words are all part of the known field."""
MOST_COMPARED = 100


def text(fields: Fields, field: str) -> str | None:
    value = fields.get(field)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{field} must be a text")
    if value is not None and not value.isascii() and not is_valid_unicode(value):
        raise InvalidRequest(f"{field} is not valid Unicode")
    return value and value.strip()


def is_valid_unicode(value: str) -> bool:
    """True if the text has no lone surrogate. JSON can escape one half of a surrogate pair; no file system,
    SSH server or record accepts that."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def integer(fields: Fields, field: str, default: int, least: int, most: int) -> int:
    value = fields.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidRequest(f"{field} must be a whole number from {least} to {most}")
    return value


def flag(fields: Fields, field: str, *, default: bool = False) -> bool:
    value = fields.get(field)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidRequest(f"{field} must be true or false")
    return value


def remote_dir(fields: Fields, field: str, default: str) -> str:
    value = text(fields, field) or default
    if not value.startswith("/") or any(ord(letter) < 32 for letter in value):
        raise InvalidRequest(f"{field} must be an absolute path on the instance")
    return value


def refuse_unknown_fields(
    given: Iterable[str], known: Collection[str], owner: str, kind: str = "field"
) -> None:
    """Refuses unknown fields, which are mostly typing errors; the message has the most similar known one.
    `owner` is for the sentence: `an instance`."""
    unknown = min((name for name in given if name not in known), default=None)
    if unknown is not None:
        near = nearest_field(unknown, known)
        suggestion = f"; the nearest is {near}. The {kind}s are " if near else f"; the {kind}s are "
        offered = suggestion + ", ".join(sorted(known)) if known else ", which has none"
        raise InvalidRequest(f"{_shown(unknown)} is not a {kind} of {owner}{offered}")


def refuse_misspelled_fields(
    given: Collection[str], known: Collection[str], owner: str, kind: str = "field"
) -> None:
    """Refuses unknown fields that are very similar to a known field which is not given. Accepts other unknown
    fields."""
    missing = [name for name in known if name not in given]
    for name in islice((name for name in given if name not in known), MOST_COMPARED):
        near = nearest_field(name, missing, least=MISSPELLED)
        if near is not None:
            raise InvalidRequest(f"{_shown(name)} is not a {kind} of {owner}; the nearest is {near}")


def nearest_field(name: str, known: Collection[str], *, least: float = NEAR) -> str | None:
    """Returns the most similar known field; None if no similarity reaches `least`."""
    if len(name) > LONGEST_SHOWN:
        return None
    scored = [(_similarity(name, each), each) for each in sorted(known)]
    similarity, nearest = max(scored, key=lambda pair: pair[0], default=(0.0, None))
    return nearest if similarity >= least else None


def _similarity(name: str, known: str) -> float:
    """Compares the letters, and the words in any order (`workflowFile`, `file-workflow`). A name whose words
    are all part of the known one (`images` of `input_images`) is similar to it."""
    words, known_words = _words(name), _words(known)
    ratio = max(
        _ratio(name.casefold(), known.casefold()),
        _ratio("".join(sorted(words)), "".join(sorted(known_words))),
    )
    is_part = bool(words) and set(words) < set(known_words)
    return max(ratio, PART) if is_part else ratio


def _ratio(first: str, second: str) -> float:
    return SequenceMatcher(None, first, second, autojunk=False).ratio()


def _words(name: str) -> list[str]:
    return [word.casefold() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+", name)]


def _shown(name: str) -> str:
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name[:LONGEST_SHOWN])
