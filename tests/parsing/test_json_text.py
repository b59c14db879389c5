"""JSON from other programs, and advice about the usual mistakes."""

import codecs

import pytest

from comfyui_workflow.parsing import json_text
from comfyui_workflow.parsing.json_text import json_digest, parsed_json

TEXT = '{"text": "für 日本"}'


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        TEXT.encode("utf-16"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-16-le"),
        f"\r\n {TEXT} \n".encode(),
    ],
)
def test_every_unicode_encoding_is_read(content: bytes) -> None:
    assert parsed_json(content) == {"text": "für 日本"}
    assert parsed_json(content, "utf-8") == {"text": "für 日本"}


def test_another_encoding_is_read_if_it_is_named() -> None:
    assert parsed_json('{"text": "für"}'.encode("latin-1"), "iso-8859-1") == {"text": "für"}
    assert parsed_json('{"text": "für"}'.encode(), "iso-8859-1") == {"text": "für"}
    for charset in (None, "utf-8", "no-such", "zip"):
        with pytest.raises(
            ValueError, match=r"byte 12 \(0xFC\) is not UTF-8\. Send it as UTF-8, in PowerShell"
        ):
            parsed_json('{"text": "für"}'.encode("latin-1"), charset)


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        ("{'a': 1}", "line 1, column 2.*Names and texts need double quotes. Shells of Windows"),
        ("'{a: 1}'", "Names and texts need double quotes"),
        ("{a: 1}", "Names and texts need double quotes"),
        ('{"a": yes}', "Names and texts need double quotes"),
        (
            "@body.json",
            r"the name of a file, not its content: curl sends the content with --data-binary @FILE",
        ),
        ('{"a": 1,\n}', r"line 2, column 1.*Leave out the comma|column 8.*Leave out the comma"),
        ('{"a": [1, ]}', "Leave out the comma before the bracket"),
        ('// my order\n{"a": 1}', "JSON has no comments"),
        ('{"a": 1, # steps\n "b": 2}', "JSON has no comments"),
        ('{"a": /* x */ 1}', "JSON has no comments"),
        ('{"a": "two\nlines"}', r"a line end is written \\n"),
        ('{"a": "a "red" car"}', r"a quote is written \\\""),
        ('{"a": 1} {"b": 2}', r"extra data \(line 1, column 10\)$"),
        ("{", r"\(line 1, column 2\)$"),
        ("<html>", r"\(line 1, column 1\)$"),
    ],
)
def test_an_error_says_where_it_is_and_what_to_do(content: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice) as error:
        parsed_json(content.encode())
    assert "red" not in str(error.value), "the content may be a secret"


@pytest.mark.parametrize(
    "text",
    [
        "18446744073709551615",
        "123456789012345678901234567890123",
        "[1, 1.0, 1e5, -0, -0.0, 0.1, 1e400, 5e-324, 1E+2, 100000000000000000000000.5]",
        "[NaN, Infinity, -Infinity]",
        '{"a": 1, "a": 2}',
        r'"\ud83d\ude00 \ud800 \u0000 \/"',
        "[" * 300 + "]" * 300,
        '  {"a": [true, false, null, "für"]} ',
    ],
)
def test_a_large_text_is_parsed_as_a_short_one(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = parsed_json(text.encode())
    monkeypatch.setattr(json_text, "LARGE_BYTES", 0)
    assert repr(parsed_json(text.encode())) == repr(expected)
    assert repr(parsed_json(text.encode("utf-16"))) == repr(expected)


@pytest.mark.parametrize("text", ["[1,]", "{'a': 1}", "[01]", "", "1 2", '"\n"', "9" * 5000])
def test_a_large_text_is_refused_as_a_short_one(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError) as expected:
        parsed_json(text.encode())
    monkeypatch.setattr(json_text, "LARGE_BYTES", 0)
    with pytest.raises(ValueError) as found:
        parsed_json(text.encode())
    assert str(found.value) == str(expected.value)


def test_the_digest_tells_values_apart_that_are_equal_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [1, 1.0, True, "1", ["1"], {"1": 1}, [], {}, None, "", ["", ""], [[""], []], [[], [""]], "ab"]
    assert len({json_digest(each) for each in values}) == len(values)
    whole = json_digest(["a" * 10, "für"])
    monkeypatch.setattr(json_text, "LARGE_BYTES", 3)
    assert json_digest(["a" * 10, "für"]) == whole
