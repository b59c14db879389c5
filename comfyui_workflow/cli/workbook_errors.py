"""Cells of an XLSX file whose formula failed (`#NAME?`). The reader of spreadsheets returns them as empty."""

import posixpath
import re
from collections.abc import Iterator
from io import BytesIO
from xml.etree import ElementTree
from zipfile import BadZipFile, ZipFile

_WORKBOOK = "xl/workbook.xml"
_RELATIONS = "xl/_rels/workbook.xml.rels"
_CELL = re.compile(r"([A-Z]{1,3})([1-9][0-9]*)")


def failed_cells(content: bytes, sheet_name: str) -> dict[tuple[int, int], str]:
    """Returns the errors of a sheet by (row, column), counted from 0; `{}` if the file is not XLSX."""
    try:
        with ZipFile(BytesIO(content)) as archive:
            sheet = _sheet_path(archive, sheet_name)
            return dict(_failed(archive, sheet)) if sheet else {}
    except (BadZipFile, ElementTree.ParseError, KeyError, NotImplementedError, EOFError):
        return {}


def _sheet_path(archive: ZipFile, sheet_name: str) -> str | None:
    """Raises: KeyError for another format, ParseError."""
    sheets = ElementTree.fromstring(archive.read(_WORKBOOK)).iter()  # noqa: S314 - the user's own file
    keys = {
        value
        for element in sheets
        if _tag(element) == "sheet" and element.get("name") == sheet_name
        for name, value in element.items()
        if name.endswith("}id")
    }
    for relation in ElementTree.fromstring(archive.read(_RELATIONS)):  # noqa: S314 - the same
        if relation.get("Id") in keys:
            return posixpath.normpath(posixpath.join("/xl", relation.get("Target", ""))).lstrip("/")
    return None


def _failed(archive: ZipFile, sheet: str) -> Iterator[tuple[tuple[int, int], str]]:
    with archive.open(sheet) as file:
        for _, element in ElementTree.iterparse(file):  # noqa: S314 - the same
            if _tag(element) == "c" and element.get("t") == "e":
                place = _CELL.fullmatch(element.get("r", ""))
                written = "".join(each.text or "" for each in element if _tag(each) == "v")
                if place and written:
                    yield (int(place[2]) - 1, _column(place[1])), written
            if _tag(element) == "row":
                element.clear()


def _column(letters: str) -> int:
    """Returns 0 for A, 26 for AA."""
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
