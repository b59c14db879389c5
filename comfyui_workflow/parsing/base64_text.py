"""Decoding of base64 as programs, shells and forms write it."""

import base64
import binascii
import re
from io import BytesIO
from urllib.parse import unquote

_PYTHON_BYTES = re.compile(r"b'([^']*)'|b\"([^\"]*)\"")
_NOT_DATA = re.compile(r"\s|\\[nrt]|\\(?=/)")
"""White space, also as the escapes of a JSON text that was escaped twice."""
_URL_SAFE = str.maketrans("-_", "+/")
_SHORTEST_LINE = 16
PIECE_LETTERS = 256 * 1024
_ENCODED_AGAIN = (b"data:image/", b"iVBORw0KGgo", b"/9j/", b"UklGR")
"""Beginnings of the base64 of pictures (PNG, JPEG, WEBP), in what should be a picture."""


def decoded_base64(given: str) -> bytes:
    """Decodes a data URI or plain base64: wrapped into lines, with or without padding, with the alphabet for
    URLs, in quotes, percent-encoded, with spaces in place of `+`, as a form decodes them, or encoded twice.
    Raises: ValueError, with the reason."""
    content = _decoded(given)
    return _decoded(content.decode("ascii", "replace")) if content.startswith(_ENCODED_AGAIN) else content


def _decoded(given: str) -> bytes:
    text = _unquoted(given)
    if "%" in text:
        text = unquote(text)
    start = _start_of_data(text) if text[:5].lower() == "data:" else 0
    if text.find(" ", start) >= 0:
        text, start = _with_plus_signs(text[start:]), 0
    return _decoded_pieces(text, start)


def _decoded_pieces(text: str, start: int) -> bytes:
    """Decodes in pieces: a large text has few copies in memory. Raises: ValueError."""
    content, rest = BytesIO(), ""
    for at in range(start, len(text), PIECE_LETTERS):
        digits = _digits(rest + text[at : at + PIECE_LETTERS])
        if "=" in digits:  # nothing but padding may follow
            rest = digits + _digits(text[at + PIECE_LETTERS :])
            break
        whole = len(digits.rstrip("\\")) // 4 * 4  # an escape at the end may go on in the next piece
        is_last = at + PIECE_LETTERS >= len(text)
        rest = digits if is_last else digits[whole:]
        content.write(_decoded_digits("" if is_last else digits[:whole]))
    digits = rest.rstrip("=")
    if len(digits) % 4 == 1:
        raise ValueError("characters are missing: it was cut off")
    content.write(_decoded_digits(digits + "=" * (-len(digits) % 4)))
    return content.getvalue()


def _digits(text: str) -> str:
    return _NOT_DATA.sub("", text).translate(_URL_SAFE)


def _decoded_digits(digits: str) -> bytes:
    try:
        return base64.b64decode(digits, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(str(error)) from error


def _unquoted(text: str) -> str:
    inner = text.strip()
    python = _PYTHON_BYTES.fullmatch(inner)
    if python:
        return python[1] or python[2] or ""
    is_quoted = len(inner) > 1 and inner[0] == inner[-1] and inner[0] in "\"'"
    return inner[1:-1] if is_quoted else text.lstrip()


def _start_of_data(uri: str) -> int:
    """Returns where the base64 of a data URI begins. Raises: ValueError."""
    comma = uri.find(",")
    if comma < 0:
        raise ValueError("this data URI has no comma before its data")
    if not uri[:comma].lower().rstrip().endswith(";base64"):
        raise ValueError("this data URI is not base64")
    return comma + 1


def _with_plus_signs(text: str) -> str:
    """Puts `+` in place of spaces. Spaces after pieces of equal length are folded line ends instead."""
    inner = text.strip()
    if " " not in inner or "\n" in inner or "\r" in inner:
        return inner
    *pieces, last = inner.split(" ")
    length = len(pieces[0])
    is_folded = {*map(len, pieces)} == {length} and length >= max(_SHORTEST_LINE, len(last))
    if is_folded and length % 4 == 0:
        return inner
    ends_with_plus = text == f"{inner} " and len(inner) % 4 == 3
    return inner.replace(" ", "+") + "+" * ends_with_plus
