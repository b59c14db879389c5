"""Values that a spreadsheet has changed: shortened numbers, lost digits, failed formulas."""

from pathlib import Path

import pytest

from comfyui_workflow.cli.batch_rows import read_rows
from comfyui_workflow.errors import InvalidRequest
from tests.cli.workbooks import write_workbook

HEADER = [("str", "6.text"), ("str", "3.seed")]


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("1.12590E+15", "row 3: 3.seed is 1.12590E+15: the spreadsheet has shortened this number. Format"),
        ('"1,1259E+15"', "row 3: 3.seed is 1,1259E"),
        ("4E+11", "has shortened"),
        ("#NAME?", "row 3: 3.seed is #NAME[?]: the spreadsheet could not compute this cell"),
        ("#N/A", "could not compute"),
        ("#WERT!", "could not compute"),
        ("#DIV/0!", "could not compute"),
        ("Err:508", "could not compute"),
    ],
)
def test_a_damaged_cell_is_refused(tmp_path: Path, cell: str, sentence: str) -> None:
    (tmp_path / "rows.csv").write_text(f"6.text,3.seed\na lake,1\na town,{cell}\n")
    with pytest.raises(InvalidRequest, match=sentence.replace("+", "[+]")):
        read_rows(tmp_path / "rows.csv")


@pytest.mark.parametrize("cell", ["1e3", "12E45", "1.5e-5", "#1", "# a title!", "#NAMES", "2E+10"])
def test_other_cells_are_values(tmp_path: Path, cell: str) -> None:
    (tmp_path / "rows.csv").write_text(f"6.text\n{cell}\n")
    assert read_rows(tmp_path / "rows.csv").values == ({"6.text": cell},)


def test_a_failed_formula_of_a_workbook_is_no_empty_cell(tmp_path: Path) -> None:
    write_workbook(
        tmp_path / "t.xlsx", [HEADER, [("str", "a"), ("n", "1")], [("e", "#NAME?"), ("n", "2")]], 4
    )
    with pytest.raises(InvalidRequest, match=r"row 6: 6\.text is #NAME\?: the spreadsheet could not compute"):
        read_rows(tmp_path / "t.xlsx")


def test_lost_digits_of_a_workbook_are_told(tmp_path: Path) -> None:
    write_workbook(tmp_path / "t.xlsx", [HEADER, [("str", "a"), ("n", "1.84467440737096E+19")]])
    with pytest.raises(
        InvalidRequest, match=r"row 2: 3\.seed is 1\.8.*has lost the last digits of this number"
    ):
        read_rows(tmp_path / "t.xlsx")


@pytest.mark.parametrize(
    ("seeds", "is_told"),
    [
        (("1125899906842620", "12"), True),
        (("1125899906842620", "18446744073709500000"), True),
        (("1125899906842620", "1125899906842624"), False),
        (("112589990684260", "10"), False),
    ],
)
def test_digits_that_excel_has_replaced_by_zeros_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seeds: tuple[str, ...], *, is_told: bool
) -> None:
    (tmp_path / "rows.csv").write_text("\n".join(("3.seed", *seeds)))
    assert [row["3.seed"] for row in read_rows(tmp_path / "rows.csv").values] == list(map(int, seeds))
    assert ("Excel replaces the digits after the 15th" in capsys.readouterr().err) is is_told


def test_dates_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    read_rows(Path(__file__).parent / "tables" / "rows.xlsx")
    told = capsys.readouterr().err
    assert "row 5: 6.text is a date or a time in the spreadsheet, and is read as 2026-11-30. If you" in told
