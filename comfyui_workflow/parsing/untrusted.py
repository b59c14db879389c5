"""What an instance or a file says, taken with care: it may be anything, and what we make of it must be
recordable."""

import json
import re
from collections.abc import Mapping
from typing import Any

LONGEST_SHOWN = 400
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def read_json(content: bytes | str) -> Any:
    """With every text in it valid Unicode: JSON can escape half of a character, which no record and no file
    name takes. Raises: ValueError for what is no JSON, or nested without end."""
    text = content.decode("utf-8-sig", "replace") if isinstance(content, bytes) else content
    if "\\ud" in text or "\\uD" in text:
        text = _ESCAPE.sub(lambda escape: "\\ufffd" if escape["half"] else escape[0], text)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def an_object(value: object) -> Mapping[str, Any]:
    """The value, or an empty one where it is something else; so are the others."""
    return value if isinstance(value, dict) else {}


def a_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def a_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def shown(value: object) -> str:
    """Any value, in a sentence: of a reasonable length."""
    try:
        text = str(value)
    except (RecursionError, ValueError):  # nested without end; a number of more digits than Python writes
        text = f"a {type(value).__name__}"
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"


def is_safe_name(name: str) -> bool:
    """Whether a name is one of a plain file: no directory, no control character."""
    return bool(name) and name not in (".", "..") and not re.search(r"[\x00-\x1f\x7f/\\]", name)
