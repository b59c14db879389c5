"""Base64 as programs, shells and forms write it."""

import base64
import json
import tracemalloc
from urllib.parse import quote

import pytest

from comfyui_workflow.parsing import base64_text
from comfyui_workflow.parsing.base64_text import decoded_base64

CONTENT = bytes(range(256)) * 3 + b"\xfb\xff\xfe"
PLAIN = base64.b64encode(CONTENT).decode()
LINES = base64.encodebytes(CONTENT).decode()


@pytest.mark.parametrize("cut", [0, 1, 2])
@pytest.mark.parametrize("padding", ["", "="], ids=["unpadded", "padded"])
def test_padding_is_optional(cut: int, padding: str) -> None:
    content = CONTENT[: len(CONTENT) - cut]
    digits = base64.b64encode(content).decode().rstrip("=")
    assert decoded_base64(digits + padding * (-len(digits) % 4)) == content


@pytest.mark.parametrize(
    "given",
    [
        PLAIN,
        f"data:image/png;base64,{PLAIN}",
        f"DATA:image/png;charset=utf-8;Base64, {PLAIN}",
        LINES,
        LINES.replace("\n", "\r\n"),
        LINES.replace("\n", "\r\n    "),
        LINES.replace("\n", " "),
        LINES.replace("\n", "\\n"),
        PLAIN.replace("/", "\\/"),
        base64.urlsafe_b64encode(CONTENT).decode(),
        PLAIN.replace("+", " "),
        json.dumps(PLAIN),
        repr(PLAIN.encode()),
        quote(PLAIN, safe=""),
        quote(f"data:image/png;base64,{PLAIN}", safe=""),
    ],
    ids=[
        "plain", "data URI", "data URI with options", "lines", "CRLF", "indented", "folded", "escaped lines",
        "escaped slashes", "URL-safe", "spaces for plus", "quoted", "Python bytes", "percent", "percent URI",
    ],
)  # fmt: skip
@pytest.mark.parametrize("piece", [base64_text.PIECE_LETTERS, 4, 7])
def test_every_way_of_writing_is_decoded(given: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large text is decoded in pieces."""
    monkeypatch.setattr(base64_text, "PIECE_LETTERS", piece)
    assert "+" in PLAIN and "/" in PLAIN
    assert decoded_base64(given) == CONTENT


@pytest.mark.parametrize("given", [f"{PLAIN}==", f"{PLAIN}=\n=\n", f"{PLAIN[:-1]}\n \n"])
def test_padding_may_be_in_another_piece(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base64_text, "PIECE_LETTERS", len(PLAIN) - 2)
    assert CONTENT.startswith(decoded_base64(given)[:700])


def test_a_large_text_has_no_copies_of_its_size() -> None:
    given = "data:image/png;base64," + base64.b64encode(bytes(9_000_000)).decode()
    tracemalloc.start()
    try:
        assert decoded_base64(given) == bytes(9_000_000)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2.4 * 9_000_000  # the content, room to grow, and the one that it is compared with


@pytest.mark.parametrize("written", ["a+/v+7aa", "a+/v+7a+", "a+++++/+"])
def test_a_space_is_a_plus_sign(written: str) -> None:
    assert decoded_base64(written.replace("+", " ")) == base64.b64decode(written)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("abcde", "it was cut off"),
        ("data:image/png;base64", "no comma before its data"),
        ("data:text/plain,hello", "is not base64"),
        ("ab!cdefg", "Only base64 data is allowed"),
        ("ab==cdef", "padding|base64"),
        ("abcd=" + "cdef" * 9, "padding|base64|cut off"),
        ("/home/me/photo.png", "base64"),
        ("é", "ASCII|base64|cut off"),
    ],
)
@pytest.mark.parametrize("piece", [base64_text.PIECE_LETTERS, 4])
def test_anything_else_is_refused(
    given: str, reason: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base64_text, "PIECE_LETTERS", piece)
    with pytest.raises(ValueError, match=reason):
        decoded_base64(given)


@pytest.mark.parametrize("head", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF"])
@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_what_is_encoded_twice_is_decoded_twice(head: bytes, prefix: str) -> None:
    once = prefix + base64.b64encode(head + CONTENT).decode()
    assert decoded_base64(base64.b64encode(once.encode()).decode()) == head + CONTENT


def test_nothing_is_nothing() -> None:
    assert decoded_base64(" ") == b""
