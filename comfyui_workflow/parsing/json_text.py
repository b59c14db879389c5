"""Parsing of JSON from other programs, with errors that say where it is wrong and what to do."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any

from pydantic_core import from_json

LARGE_BYTES = 1024 * 1024
"""Longer UTF-8 is parsed without a copy as text, which has up to four bytes for each character."""
_COMMENT = re.compile(r"//|/\*|#")
_UNQUOTED = re.compile(r"['\w]")

_FILE_NAME = "It is the name of a file, not its content: curl sends the content with --data-binary @FILE"
_DOUBLE_QUOTES = (
    "Names and texts need double quotes. Shells of Windows remove them: put the JSON into a file, and send "
    "it with curl --data-binary @FILE"
)


def parsed_json(content: bytes, charset: str | None = None) -> Any:
    """Parses UTF-8, UTF-16 or UTF-32; other bytes are decoded with `charset`, if it is given.
    Raises: ValueError, with the reason in a sentence without a point; RecursionError."""
    if len(content) > LARGE_BYTES:
        with suppress(ValueError):  # the other parser accepts more, and its errors have a place
            return from_json(content)
    text = _decoded(content, charset)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{error.msg[0].lower()}{error.msg[1:]} (line {error.lineno}, column {error.colno})"
        advice = _advice(text, error)
        raise ValueError(f"{place}. {advice}" if advice else place) from error


def json_digest(value: object) -> bytes:
    """Returns a hash of a JSON value: equal only for values that are written equally. A long text is hashed
    in pieces. Raises: RecursionError."""
    digest = sha256()
    _hash(value, digest.update)
    return digest.digest()


def _hash(value: object, update: Callable[[bytes], object]) -> None:
    """Feeds the value with the length of each part, so that no two values give the same bytes."""
    match value:
        case str():
            update(b"s%d:" % len(value))
            for at in range(0, len(value), LARGE_BYTES):
                update(value[at : at + LARGE_BYTES].encode("utf-8", "surrogatepass"))
        case dict():
            update(b"d%d:" % len(value))
            for name, each in value.items():
                _hash(name, update)
                _hash(each, update)
        case list():
            update(b"l%d:" % len(value))
            for each in value:
                _hash(each, update)
        case _:
            update(f"{json.dumps(value)};".encode())


def _decoded(content: bytes, charset: str | None) -> str:
    try:
        return content.decode(json.detect_encoding(content), "surrogatepass")
    except UnicodeDecodeError as error:
        try:
            if charset is not None:
                return content.decode(charset)
        except (LookupError, ValueError):
            pass
        byte = content[error.start]
        raise ValueError(
            f"byte {error.start + 1} (0x{byte:02X}) is not UTF-8. Send it as UTF-8, in PowerShell with "
            "-ContentType 'application/json; charset=utf-8'"
        ) from error


def _advice(text: str, error: json.JSONDecodeError) -> str | None:
    """Returns what to do about the usual mistakes of shells and templates."""
    message, before, after = error.msg, text[: error.pos].rstrip(), text[error.pos :].lstrip()
    has_comma = before.endswith(",") and after[:1] in ("}", "]")
    mistakes = (
        (text.lstrip().startswith("@"), _FILE_NAME),
        (_COMMENT.match(after), "JSON has no comments"),
        (has_comma or message.startswith("Illegal trailing comma"), "Leave out the comma before the bracket"),
        (message.startswith("Invalid control character"), r"In a text, a line end is written \n"),
        (message.startswith("Expecting ','"), r"In a text, a quote is written \""),
        (message.startswith("Expecting") and _UNQUOTED.match(after), _DOUBLE_QUOTES),
    )
    return next((advice for is_made, advice in mistakes if is_made), None)
