"""`--set`: values from the command line."""

from pathlib import Path

import pytest

from comfyui_workflow.cli import input_values
from comfyui_workflow.cli.input_values import read_values
from comfyui_workflow.errors import InvalidRequest


@pytest.mark.parametrize(
    ("typed", "name", "value"),
    [
        ("6.text=a cat", "6.text", "a cat"),
        ("3.steps=30", "3.steps", 30),
        ("3.seed=18446744073709551615", "3.seed", 18446744073709551615),
        ("3.cfg=7.5", "3.cfg", 7.5),
        ("1.on=true", "1.on", True),
        ("1.on=True", "1.on", "True"),
        ("1.names=[1, 2]", "1.names", [1, 2]),
        ('6.text="30"', "6.text", "30"),
        ('6.text="@home"', "6.text", "@home"),
        ("6.text=", "6.text", ""),
        ("6.text=a=b.c=d", "6.text", "a=b.c=d"),
        ("cfg=7.cfg=8", "cfg=7.cfg", 8),
        ("My sampler.steps=1", "My sampler.steps", 1),
        ("6.text=two\nlines", "6.text", "two\nlines"),
        ("3.cfg=NaN", "3.cfg", "NaN"),
        ("3.cfg=-Infinity", "3.cfg", "-Infinity"),
        ("3.cfg=1e999", "3.cfg", "1e999"),
        ("3.seed=" + "9" * 5000, "3.seed", "9" * 5000),
        ("6.text=" + "[" * 100_000, "6.text", "[" * 100_000),
        ("6.text=https://a.b/c?d=e", "6.text", "https://a.b/c?d=e"),
    ],
)
def test_a_value_is_json_or_text(typed: str, name: str, value: object) -> None:
    read = read_values([typed])
    assert read == {name: value}
    assert type(read[name]) is type(value)


def test_the_last_of_two_counts() -> None:
    assert read_values(["3.steps=1", "3.cfg=2", "3.steps=4"]) == {"3.steps": 4, "3.cfg": 2}


@pytest.mark.parametrize("typed", ["", "6", "6=x", "text=a.b", "6.text", "6.text a cat"])
def test_what_names_no_input_is_refused(typed: str) -> None:
    with pytest.raises(InvalidRequest, match="must be"):
        read_values([typed])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a cat", "a cat"),
        (b"a cat\n", "a cat"),
        (b"a cat\r\nin the rain\r\n", "a cat\nin the rain"),
        (b"two\n\n", "two\n"),
        (b"\xef\xbb\xbfa cat", "a cat"),
        (b"30", "30"),
        (b"@other.txt", "@other.txt"),
        (b"", ""),
    ],
)
def test_a_file_is_text(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "prompt.txt").write_bytes(content)
    assert read_values([f"6.text=@{tmp_path}/prompt.txt"]) == {"6.text": text}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "picture").write_bytes(b"\x89PNG\x81")
    monkeypatch.setattr(input_values, "LARGEST_FILE_BYTES", 10)
    (tmp_path / "long").write_bytes("ü".encode() * 6)
    for path, reason in (
        ("no.txt", "No such file"),
        (".", "Is a directory"),
        ("picture", "not text in UTF-8, UTF-16 or Windows-1252"),
        ("long", "too large"),
    ):
        with pytest.raises(InvalidRequest, match=reason) as refusal:
            read_values([f"6.text=@{tmp_path}/{path}"])
        assert str(refusal.value).startswith("--set 6.text: ")
