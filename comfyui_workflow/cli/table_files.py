"""Reader of tables in the formats that spreadsheets save: CSV, XLSX, XLS, ODS; and lists of JSON objects."""

import csv
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from comfyui_workflow.cli.input_values import content_of_file, read_json, text_of_content
from comfyui_workflow.cli.workbook_errors import failed_cells
from comfyui_workflow.errors import InvalidRequest

Cells = list[Any]
"""Values of one row of a table; an empty cell is an empty text. Spreadsheets also have dates and times."""
Moment = datetime | date | time

_OPTION = "--rows"
_SEPARATORS = (",", ";", "\t")
_JSON_ENDINGS = (".json", ".jsonl", ".ndjson")
_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
"""First bytes of XLSX and ODS (a ZIP archive), and of XLS."""
LARGEST_EXACT = 2**53


def table_cells(path: Path) -> Iterator[tuple[int, Cells]]:
    """Yields the rows with their numbers as in a spreadsheet: the first row, which is the header, is row 1.
    Raises: InvalidRequest."""
    content = content_of_file(_OPTION, path)
    return (
        _spreadsheet_cells(path, content) if content.startswith(_SPREADSHEETS) else _csv_cells(path, content)
    )


def is_json(path: Path) -> bool:
    """True for a JSON file, also with one object on each line, by its ending or its content."""
    if path.suffix.lower() in _JSON_ENDINGS:
        return True
    if not path.is_file():
        return False
    begin = content_of_file(_OPTION, path)[:64].removeprefix(b"\xef\xbb\xbf").split()
    return b"".join(begin).startswith((b'{"', b"[{", b"[]", b"{}"))


def json_values(path: Path) -> Any:
    """Returns the parsed content. If each line is a JSON object, a list of them. Raises: InvalidRequest."""
    text = text_of_content(_OPTION, path, content_of_file(_OPTION, path))
    try:
        return [*_lines(text)] if path.suffix.lower() in _JSON_ENDINGS[1:] else read_json(text)
    except (ValueError, RecursionError) as error:
        try:
            objects = [*_lines(text)]
        except (ValueError, RecursionError):
            objects = []
        if len(objects) > 1:
            return objects
        raise InvalidRequest(f"{path} is not JSON ({error})") from error


def _lines(text: str) -> Iterator[Any]:
    return (read_json(line) for line in text.split("\n") if line.strip())


def _csv_cells(path: Path, content: bytes) -> Iterator[tuple[int, Cells]]:
    text, separator = _without_separator_line(text_of_content(_OPTION, path, content))
    reader = csv.reader(StringIO(text, newline=""), delimiter=separator or _separator(text), strict=True)
    try:
        yield from enumerate(reader, start=1)
    except csv.Error as error:
        raise InvalidRequest(f"{path}, line {reader.line_num}: {error}") from error


def _without_separator_line(text: str) -> tuple[str, str | None]:
    """Returns the text without its first line `sep=;`, and the separator. Excel hides that line and does not
    count it."""
    first, _, rest = text.partition("\n")
    name, _, separator = first.strip("\r").strip('"').partition("=")
    is_named = name.strip().lower() == "sep" and len(separator) == 1
    return (rest, separator) if is_named else (text, None)


def _separator(text: str) -> str:
    """Returns the separator that splits the header into most columns."""

    def columns(separator: str) -> int:
        return len(next(csv.reader(StringIO(text, newline=""), delimiter=separator), []))

    return max(_SEPARATORS, key=columns)


def _spreadsheet_cells(path: Path, content: bytes) -> Iterator[tuple[int, Cells]]:
    """Yields the rows of the first sheet that has any."""
    from python_calamine import (  # noqa: PLC0415 - only few tables need it
        CalamineError,
        CalamineWorkbook,
        SheetTypeEnum,
        SheetVisibleEnum,
    )

    try:
        with CalamineWorkbook.from_filelike(BytesIO(content)) as book:
            shown = [
                each.name
                for each in book.sheets_metadata
                if each.visible is SheetVisibleEnum.Visible and each.typ is SheetTypeEnum.WorkSheet
            ]
            sheets = (book.get_sheet_by_name(name) for name in shown)
            sheet = next((sheet for sheet in sheets if sheet.start is not None), None)
            rows = sheet.to_python() if sheet else []
            failed = failed_cells(content, sheet.name) if sheet else {}
    except (CalamineError, OSError, ValueError) as error:
        raise InvalidRequest(f"{path} cannot be read as a spreadsheet: {error}") from error
    top, left = sheet.start if sheet and sheet.start else (0, 0)
    for (row, column), word in failed.items():
        rows[row - top][column - left] = word
    yield from ((number, list(map(_plain, cells))) for number, cells in enumerate(rows, start=1 + top))


def _plain(cell: Any) -> Any:
    """Converts a cell to a value of JSON, except dates and times. A spreadsheet stores whole numbers as
    floats."""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < LARGEST_EXACT:
        return int(cell)
    return str(cell) if isinstance(cell, timedelta) else cell
