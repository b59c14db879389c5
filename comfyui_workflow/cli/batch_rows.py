"""Rows of a batch: read from a table, or made from combinations of values."""

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfyui_workflow.cli.input_values import exact_number, name_and_value, text_of_file
from comfyui_workflow.cli.messages import say
from comfyui_workflow.cli.table_files import LARGEST_EXACT, Cells, Moment, is_json, json_values, table_cells
from comfyui_workflow.errors import InvalidRequest

Row = dict[str, Any]

MOST_COUNTED = 10_000
_COUNTED = re.compile(r"(-?[0-9]+)\.\.(-?[0-9]+)")
_SHORTENED = re.compile(r"-?[0-9]([.,][0-9]+)?E\+(1[1-9]|[2-9][0-9])")
"""A whole number of more than 11 digits, as Excel and LibreOffice write it to CSV files."""
_ERROR = re.compile(r"#[A-Z\u00c0-\u00dc/0]+[?!]|#N/A|#N/V|#NV|Err:[0-9]{3}")
"""A failed formula, also in other languages (`#WERT!`), and of LibreOffice (`Err:508`)."""
_AS_TEXT = "Format the column as text, and enter the numbers again"
EXCEL_DIGITS = 15
_WORDS = {"true": True, "false": False}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Input values, one row for each run."""

    values: tuple[Row, ...]
    locations: tuple[str, ...]
    """Location of each row, for error messages."""


def read_body(path: Path) -> dict[str, Any] | None:
    """Returns the request body of a whole batch, if the file has one; None for a table. Raises:
    InvalidRequest."""
    value = json_values(path) if is_json(path) else None
    return value if isinstance(value, dict) else None


def read_rows(path: Path) -> Rows:
    """Reads the rows of a table, or of a JSON file with a list of objects. Raises: InvalidRequest."""
    numbered = list(_json_rows(path) if is_json(path) else _table_rows(path))
    if not numbered:
        raise InvalidRequest(f"{path} has no rows. It needs a header with input names and a row for each run")
    _tell_cut_numbers(path, (row for _, row in numbered))
    locations = tuple(f"{path.name} row {number}" for number, _ in numbered)
    return Rows(values=tuple(row for _, row in numbered), locations=locations)


def combined_rows(settings: Iterable[str]) -> Rows:
    """Returns one row for each combination; the last input changes fastest. Raises: InvalidRequest."""
    variations = list(map(_read_variation, settings))
    varied = dict(variations)
    if len(varied) < len(variations):
        names = [name for name, _ in variations]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(
            f"--vary {duplicate} is given twice: give all its values together, as in {duplicate}=1,2,3"
        )
    combinations = itertools.islice(itertools.product(*varied.values()), MOST_COUNTED + 1)
    rows = tuple(dict(zip(varied, values, strict=True)) for values in combinations)
    if len(rows) > MOST_COUNTED:
        raise InvalidRequest(f"--vary makes more than {MOST_COUNTED} runs")
    return Rows(values=rows, locations=tuple(f"run {number}" for number in range(1, len(rows) + 1)))


def varying_inputs(inputs: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Returns the names of the inputs that differ between runs; for a single run, all names."""
    first = inputs[0] if inputs else {}
    if len(inputs) == 1:
        return frozenset(first)
    names = set[str]().union(*inputs)
    return frozenset(
        name for name in names if any(name not in each or each[name] != first.get(name) for each in inputs)
    )


def _table_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yields rows with their numbers as in a spreadsheet: the header is row 1. Empty rows and cells are
    skipped."""
    numbered = table_cells(path)
    _, header = next(numbered, (1, []))
    names = _header(path, header)
    told: set[str] = set()
    for number, cells in numbered:
        if not all(map(_is_empty, cells)):
            yield number, _row(path, number, names, cells)
            _tell_dates(path, number, dict(zip(names, cells, strict=False)), told)


def _header(path: Path, cells: Cells) -> list[str]:
    names = [str(cell).strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise InvalidRequest(f"{path} has no header. Its first row must name the inputs, as in 6.text,3.seed")
    wrong = next((name for name in names if "." not in name), None)
    if wrong is not None:
        raise InvalidRequest(
            f'{path} row 1: "{wrong}" is not an input name; it must be "<node id or title>.<input>"'
        )
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise InvalidRequest(f'{path} row 1: there are two columns "{duplicate}"')
    return names


def _row(path: Path, number: int, names: list[str], cells: Cells) -> Row:
    if not all(map(_is_empty, cells[len(names) :])):
        raise InvalidRequest(
            f"{path} row {number} has {len(cells)} cells, but the header has {len(names)}. Put a text that "
            "contains the separator in double quotes"
        )
    filled = {name: cell for name, cell in zip(names, cells, strict=False) if not _is_empty(cell)}
    for name, cell in filled.items():
        if (damage := _damage(cell)) is not None:
            raise InvalidRequest(f"{path} row {number}: {name} is {cell}: {damage}")
    return {name: _value(cell) for name, cell in filled.items()}


def _damage(cell: Any) -> str | None:
    """Returns what a spreadsheet has done to a value, and the remedy; None for other values."""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) >= LARGEST_EXACT:
        return f"the spreadsheet has lost the last digits of this number. {_AS_TEXT}"
    if not isinstance(cell, str):
        return None
    if _SHORTENED.fullmatch(cell.strip()):
        return f"the spreadsheet has shortened this number. {_AS_TEXT}"
    if _ERROR.fullmatch(cell.strip()):
        return (
            "the spreadsheet could not compute this cell. If it is a text that begins with =, + or -, put "
            "a ' before it"
        )
    return None


def _tell_dates(path: Path, number: int, cells: Row, told: set[str]) -> None:
    """Tells the first date of each column; adds the columns to `told`."""
    for name, cell in cells.items():
        if isinstance(cell, Moment) and name not in told:
            told.add(name)
            say(
                f"{path} row {number}: {name} is a date or a time in the spreadsheet, and is read as "
                f"{cell.isoformat()}. If you wrote another text, such as 3-4, format the column as text."
            )


def _tell_cut_numbers(path: Path, rows: Iterable[Row]) -> None:
    """Tells if all long whole numbers end with zeros: Excel replaces the digits after the 15th."""
    long = [
        each
        for row in rows
        for each in row.values()
        if isinstance(each, int) and not isinstance(each, bool) and abs(each) >= 10**EXCEL_DIGITS
    ]
    if long and all(each % 10 ** (len(str(abs(each))) - EXCEL_DIGITS) == 0 for each in long):
        say(
            f"{path}: {long[0]} and all other numbers of more than {EXCEL_DIGITS} digits end with zeros. "
            f"Excel replaces the digits after the {EXCEL_DIGITS}th. {_AS_TEXT}, if they were others."
        )


def _is_empty(cell: Any) -> bool:
    return isinstance(cell, str) and not cell.strip()


def _value(cell: Any) -> Any:
    """Parses a number, or `true` and `false` in any case; every other text is text. A spreadsheet also has
    cells of other types."""
    if isinstance(cell, Moment):
        return cell.isoformat()
    if not isinstance(cell, str):
        return cell
    word = cell.strip()
    number = exact_number(word)
    return _WORDS.get(word.lower(), cell) if number is None else number


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    rows = json_values(path)
    if not isinstance(rows, list):
        raise InvalidRequest(f'{path} must contain a list of objects: [{{"6.text": "a lake"}}, …]')
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InvalidRequest(f'{path} row {number} is not an object, such as {{"6.text": "a lake"}}')
        yield number, row


def _read_variation(setting: str) -> tuple[str, list[Any]]:
    name, written = name_and_value("--vary", setting)
    if written.startswith("@"):
        cells = text_of_file(f"--vary {name}", written[1:]).split("\n")
    else:
        cells = next(csv.reader([written], skipinitialspace=True), [])
    values = [value for cell in cells if cell.strip() for value in _expand(name, cell)]
    if not values:
        raise InvalidRequest(f"--vary {name} has no values. Example: {name}=1,2,3")
    return name, values


def _expand(name: str, cell: str) -> Sequence[Any]:
    """Expands `1..4` to four numbers; returns other cells as one value."""
    ends = _COUNTED.fullmatch(cell.strip())
    if ends is None:
        return [_value(cell)]
    first, last = map(int, ends.groups())
    if first > last:
        raise InvalidRequest(f"--vary {name}: in {cell} the first number must not be higher than the last")
    if last >= first + MOST_COUNTED:
        raise InvalidRequest(f"--vary {name}: {cell} is more than {MOST_COUNTED} values")
    return range(first, last + 1)
