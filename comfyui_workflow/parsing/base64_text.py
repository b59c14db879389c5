"""Decoding of base64 as programs, shells and forms write it."""

import base64
import binascii
import re
from urllib.parse import unquote

_PYTHON_BYTES = re.compile(r"b'([^']*)'|b\"([^\"]*)\"")
_NOT_DATA = re.compile(r"\s|\\[nrt]|\\(?=/)")
"""White space, also as the escapes of a JSON text that was escaped twice."""
_URL_SAFE = str.maketrans("-_", "+/")
_SHORTEST_LINE = 16
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
    if text[:5].lower() == "data:":
        text = _data_of(text)
    digits = _NOT_DATA.sub("", _with_plus_signs(text)).translate(_URL_SAFE).rstrip("=")
    if len(digits) % 4 == 1:
        raise ValueError("characters are missing: it was cut off")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(str(error)) from error


def _unquoted(text: str) -> str:
    inner = text.strip()
    python = _PYTHON_BYTES.fullmatch(inner)
    if python:
        return python[1] or python[2] or ""
    is_quoted = len(inner) > 1 and inner[0] == inner[-1] and inner[0] in "\"'"
    return inner[1:-1] if is_quoted else text.lstrip()


def _data_of(uri: str) -> str:
    """Returns the base64 of a data URI. Raises: ValueError."""
    kind, comma, data = uri.partition(",")
    if not comma:
        raise ValueError("this data URI has no comma before its data")
    if not kind.lower().rstrip().endswith(";base64"):
        raise ValueError("this data URI is not base64")
    return data


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
