"""Readers for untrusted data from an instance or a file: accept any value, return values that a record can
hold."""

import json
import re
from collections.abc import Mapping
from typing import Any

LONGEST_SHOWN = 400
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_TERMINAL_CODE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?")


def read_json(content: bytes | str) -> Any:
    """Parses JSON; every text in the result is valid Unicode. JSON can escape one half of a surrogate pair,
    which no record and no file name accepts: it becomes U+FFFD.
    Raises: ValueError for invalid JSON, and for JSON that is nested too deeply."""
    text = content.decode("utf-8-sig", "replace") if isinstance(content, bytes) else content
    if "\\ud" in text or "\\uD" in text:
        text = _ESCAPE.sub(lambda escape: "\\ufffd" if escape["half"] else escape[0], text)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def as_object(value: object) -> Mapping[str, Any]:
    """Returns the value if it is an object, else an empty object."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """Returns the value if it is a list, else an empty list."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str | None:
    """Returns the value if it is a text, else None."""
    return value if isinstance(value, str) else None


def shown(value: object) -> str:
    """Returns any value as text for a message, cut to LONGEST_SHOWN characters."""
    try:
        text = str(value)
    except (RecursionError, ValueError):  # nested too deeply; a number with more digits than Python converts
        text = f"a {type(value).__name__}"
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"


def spoken(output: bytes) -> str:
    """Returns what a program of an instance printed for a terminal as one line of plain text, cut to
    LONGEST_SHOWN characters."""
    text = _TERMINAL_CODE.sub("", output.decode("utf-8", "replace"))
    return shown(" ".join("".join(c if c.isprintable() else " " for c in text).split()))


def is_safe_name(name: str) -> bool:
    """True if the name is that of a plain file: no directory separator, no control character."""
    return bool(name) and name not in (".", "..") and not re.search(r"[\x00-\x1f\x7f/\\]", name)
