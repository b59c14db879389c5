"""Typed readers for the fields of user input. All raise InvalidRequest, which names the field."""

from collections.abc import Collection, Mapping
from typing import Any

from comfyui_workflow.errors import InvalidRequest

Fields = Mapping[str, Any]

LONGEST_SHOWN = 64


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


def refuse_unknown_fields(given: Mapping[str, Any], known: Collection[str], owner: str) -> None:
    """Refuses unknown fields, which are mostly typing errors. `owner` is for the sentence: `an instance`."""
    unknown = sorted(name for name in given if name not in known)
    if unknown:
        shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in unknown[0][:LONGEST_SHOWN])
        raise InvalidRequest(f"{shown} is not a field of {owner}; the fields are {', '.join(sorted(known))}")
