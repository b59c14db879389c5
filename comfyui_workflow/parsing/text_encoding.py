"""Decoding of text files as editors and spreadsheets save them."""

import codecs

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
WESTERN = "cp1252"
"""Encoding of CSV files from a spreadsheet on a western Windows."""


def decoded(content: bytes) -> tuple[str, str]:
    """Returns (text, name of the encoding): by the byte order mark, else UTF-8, UTF-16 without a mark, else
    cp1252, which is a guess. Raises: UnicodeDecodeError for bytes that are no text."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding), encoding
    if b"\0" in content:
        encoding = "utf-16-be" if content.startswith(b"\0") else "utf-16-le"
        return content.decode(encoding), encoding
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return content.decode(WESTERN), WESTERN
