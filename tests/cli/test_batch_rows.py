"""Tables of runs as users save them, and combinations of values."""

import codecs
import unicodedata
from pathlib import Path

import pytest

from comfyui_workflow.cli.batch_files import collect_files
from comfyui_workflow.cli.batch_rows import combined_rows, read_body, read_rows, varying_inputs
from comfyui_workflow.errors import InvalidRequest

TABLE = [{"6.text": "a lake", "3.seed": 1}, {"6.text": "a town"}]


@pytest.mark.parametrize(
    "content",
    [
        b"6.text,3.seed\na lake,1\na town,\n",
        b"\xef\xbb\xbf6.text;3.seed\r\na lake;1\r\na town;\r\n",
        b"6.text\t3.seed\na lake\t1\na town",
        b' 6.text , 3.seed ,,\n"a lake", 1 ,,\n\n , ,,\na town\n',
    ],
    ids=["plain", "a spreadsheet's", "tabs", "padded"],
)
def test_a_table(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    assert list(read_rows(tmp_path / "rows.csv").values) == TABLE


GERMAN = ({"6.text": "ein Hügel; blau", "3.seed": 1}, {"6.text": "zwei"})


@pytest.mark.parametrize(
    "content",
    [
        '6.text;3.seed\r\n"ein Hügel; blau";1\r\nzwei;\r\n'.encode("cp1252"),
        '6.text\t3.seed\r\n"ein Hügel; blau"\t1\r\nzwei\t\r\n'.encode("utf-16"),
        codecs.BOM_UTF16_BE + "6.text,3.seed\nein Hügel; blau,1\nzwei,".encode("utf-16-be"),
        "6.text,3.seed\nein Hügel; blau,1\nzwei,".encode("utf-16-le"),
        '\ufeffsep=;\r\n6.text;3.seed\r\n"ein Hügel; blau";1\r\nzwei\r\n'.encode(),
        b'"sep=|"\n6.text|3.seed\nein H\xc3\xbcgel; blau|1\nzwei|\n',
    ],
    ids=["western", "UTF-16", "big-endian", "no mark", "separator line", "another separator"],
)
def test_a_table_as_a_spreadsheet_saves_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    rows = read_rows(tmp_path / "rows.csv")
    assert rows.values == GERMAN
    assert rows.locations == ("rows.csv row 2", "rows.csv row 3")


def test_a_guessed_encoding_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_bytes("6.text\nHügel\n".encode("cp1252"))
    read_rows(tmp_path / "rows.csv")
    assert "is read as Windows-1252" in capsys.readouterr().err
    (tmp_path / "rows.csv").write_bytes("6.text\nHügel\n".encode())
    read_rows(tmp_path / "rows.csv")
    assert capsys.readouterr().err == ""


WORKBOOK = Path(__file__).parent / "tables"


@pytest.mark.parametrize("name", ["rows.xlsx", "rows.ods"])
def test_a_workbook(name: str) -> None:
    """The first sheet is hidden, the second empty; the table of the third begins at C2."""
    rows = read_rows(WORKBOOK / name)
    assert rows.values == (
        {"6.text": "ein Hügel", "3.seed": 18, "3.cfg": 7.5, "4.on": True},
        {"6.text": "2026-11-30", "3.seed": 19},
    )
    assert rows.locations == (f"{name} row 3", f"{name} row 5")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson", "rows.json", "rows.txt"])
def test_an_object_on_each_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('\ufeff{"6.text": "a lake", "3.seed": 1}\r\n\r\n{"6.text": "a town"}\r\n')
    assert list(read_rows(tmp_path / name).values) == TABLE
    assert read_body(tmp_path / name) is None


def test_one_object_on_one_line_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"6.text": "a lake"}')
    assert read_rows(tmp_path / "rows.jsonl").values == ({"6.text": "a lake"},)


def test_rows_are_counted_as_a_spreadsheet_does(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('6.text\n"two\nlines"\n\na town\n')
    rows = read_rows(tmp_path / "rows.csv")
    assert rows.values == ({"6.text": "two\nlines"}, {"6.text": "a town"})
    assert rows.locations == ("rows.csv row 2", "rows.csv row 4")


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("30", 30),
        ("-7.5", -7.5),
        ("1e3", "1e3"),
        ("1.50", "1.50"),
        ("12E45", "12E45"),
        ("18446744073709551615", 18446744073709551615),
        ("TRUE", True),
        ("false", False),
        ("007", "007"),
        ("1e999", "1e999"),
        ("NaN", "NaN"),
        ("null", "null"),
        ("[1]", "[1]"),
        ("1.2.3", "1.2.3"),
        ("a, b", "a, b"),
        (" a ", " a "),
        ("\u0663", "\u0663"),
    ],
)
def test_a_cell_is_a_number_true_false_or_text(tmp_path: Path, cell: str, value: object) -> None:
    (tmp_path / "rows.csv").write_text(f'1.a;2.b\n"{cell}";x\n', encoding="utf-8")
    (row,) = read_rows(tmp_path / "rows.csv").values
    assert row == {"1.a": value, "2.b": "x"}
    assert type(row["1.a"]) is type(value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "has no header"),
        (b"\n\n", "has no header"),
        (b"6.text\n", "has no rows"),
        (b"6.text\n\n \n", "has no rows"),
        (b"6.text,3.seed,6.text\na,1,b\n", 'row 1: there are two columns "6.text"'),
        (b"6.text,,3.seed\na,1,2\n", 'row 1: "" is not an input name'),
        (b"a lake\na town\n", 'row 1: "a lake" is not an input name'),
        (b"6.text,3.seed\na,1\na lake, at dawn,1\n", "row 3 has 3 cells, but the header has 2"),
        (b"6.text\n\x81x\n", "is not text in UTF-8, UTF-16 or Windows-1252"),
        (b"PK\x03\x04 not a spreadsheet", "cannot be read as a spreadsheet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "cannot be read as a spreadsheet"),
        (b'{"6.text": 1}\n{"6.text": ', "is not JSON"),
        (b"sep=;\r\n", "has no header"),
        (b'6.text\n"a lake\n', "line 2: unexpected end of data"),
        (b"6.text\n" + b"a" * 200_000, "field larger than field limit"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(InvalidRequest, match=sentence):
        read_rows(tmp_path / "rows.csv")


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.JSON"
    path.write_text('[{"6.text": "30"}, {"1.names": [1]}]')
    assert read_rows(path).values == ({"6.text": "30"}, {"1.names": [1]})
    assert read_body(path) is None
    path.write_text('{"rows": []}')
    assert read_body(path) == {"rows": []}
    assert read_body(tmp_path / "rows.csv") is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[NaN]", "is not JSON"),
        ("7", "a list of objects"),
        ("[]", "has no rows"),
        ('[{"6.text": 1}, 7]', "row 2 is not an object"),
    ],
)
def test_json_that_is_no_table(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(InvalidRequest, match=sentence):
        read_body(tmp_path / "rows.json")
        read_rows(tmp_path / "rows.json")


def test_values_are_combined_and_the_last_changes_fastest(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a lake, at dawn\n\na town\n")
    rows = combined_rows([f"6.text=@{tmp_path / 'prompts.txt'}", '3.seed=1..2,7, "x, y"'])
    seeds = [1, 2, 7, "x, y"]
    assert list(rows.values) == [
        {"6.text": text, "3.seed": seed} for text in ("a lake, at dawn", "a town") for seed in seeds
    ]
    assert rows.locations[7] == "run 8"


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["seed=1"], "must be"),
        (["3.seed="], "has no values"),
        (["3.seed=5..1"], "in 5..1 the first number must not be higher"),
        (["3.seed=1..9999999"], "1..9999999 is more than 10000 values"),
        (["3.seed=1", "6.text=a", "3.seed=2"], "--vary 3.seed is given twice"),
        (["3.seed=1..1000", "3.steps=1..1000"], "more than 10000 runs"),
        (["3.seed=@/nowhere"], "cannot be read"),
    ],
)
def test_values_that_cannot_be_combined(typed: list[str], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        combined_rows(typed)


def test_files_go_along_and_are_known_by_their_name(tmp_path: Path) -> None:
    here, table = tmp_path / "here", tmp_path / "table"
    for picture in (here / "a.png", table / "photos" / "b.JPG", table / "c.txt"):
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.touch()
    rows: list[dict[str, object]] = [
        {"1.image": "a.png", "6.text": "c.txt", "3.seed": 1},
        {"1.image": "photos/b.JPG"},
        {"1.image": "photos/b.JPG", "2.image": "on the instance.png"},
        {"1.image": f"{'a' * 5000}.png", "2.image": "\0.png"},
    ]
    named, files = collect_files(rows, [here, table])
    assert files == [here / "a.png", table / "photos" / "b.JPG"]
    assert named == [rows[0], {"1.image": "b.JPG"}, {**rows[2], "1.image": "b.JPG"}, rows[3]]


def test_files_of_one_name_are_known_by_their_path(tmp_path: Path) -> None:
    for name in ("a/x.png", "b/x.png", "c/y.heic", "c/z.m4a", "c/model.GLB", "sd.safetensors", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    rows: list[dict[str, object]] = [
        {"1.image": "a/x.png", "2.image": "c\\y.heic", "3.audio": "c/z.m4a"},
        {"1.image": "b/x.png", "4.model_file": "c/model.GLB"},
        {"5.ckpt_name": "sd.safetensors", "6.text": "notes.md"},
    ]
    named, files = collect_files(rows, [tmp_path])
    assert [path.relative_to(tmp_path).as_posix() for path in files] == [
        "a/x.png",
        "c/y.heic",
        "c/z.m4a",
        "b/x.png",
        "c/model.GLB",
    ]
    assert named == [
        {"1.image": tmp_path / "a/x.png", "2.image": "y.heic", "3.audio": "z.m4a"},
        {"1.image": tmp_path / "b/x.png", "4.model_file": "model.GLB"},
        rows[2],
    ]


def test_a_directory_goes_along_if_the_value_is_written_as_a_path(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    rows: list[dict[str, object]] = [
        {"1.directory": "frames", "2.filename_prefix": "frames", "3.text": "frames/"},
        {"1.directory": "./frames", "Load frames.custom_path": "frames"},
    ]
    named, files = collect_files(rows, [tmp_path])
    assert files == [tmp_path / "frames"]
    assert named[0] == {"1.directory": "frames", "2.filename_prefix": "frames", "3.text": "frames"}
    assert named[1] == {"1.directory": "frames", "Load frames.custom_path": "frames"}


def test_a_name_is_found_in_the_spelling_of_another_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    decomposed = tmp_path / unicodedata.normalize("NFD", "é.png")
    decomposed.touch()
    rows: list[dict[str, object]] = [
        {"1.image": "é.png"},
        {"1.image": "~/é.png"},
        {"1.image": "~nobody/é.png"},
    ]
    named, files = collect_files(rows, [tmp_path])
    assert files == [decomposed]
    assert named == [{"1.image": decomposed.name}, {"1.image": decomposed.name}, rows[2]]


def test_inputs_that_differ() -> None:
    assert varying_inputs([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "b": 3, "c": 0}]) == {"b", "c"}
    assert (
        varying_inputs([{"a": 1}, {}])
        == varying_inputs([{}, {"a": 1}])
        == varying_inputs([{"a": 1}])
        == {"a"}
    )
    assert varying_inputs([]) == frozenset()
