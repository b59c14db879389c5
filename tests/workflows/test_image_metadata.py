"""The workflow inside a picture."""

import json
import time
from collections.abc import Callable

import pytest

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.workflows.image_metadata import embedded_workflow, is_picture
from tests.workflows.pictures import chunk, compressed, international, png, text, with_exif

GRAPH = {"1": {"class_type": "X", "inputs": {"text": "ä"}}}
FILE = {"nodes": [], "links": []}
PROMPT, WORKFLOW = json.dumps(GRAPH), json.dumps(FILE)


@pytest.mark.parametrize(
    "picture",
    [
        png(text("prompt", PROMPT), text("workflow", WORKFLOW), text("other", "x")),
        png(compressed("prompt", PROMPT.encode()), compressed("workflow", WORKFLOW.encode())),
        png(
            international("prompt", json.dumps(GRAPH, ensure_ascii=False).encode(), is_compressed=False),
            international("workflow", WORKFLOW.encode(), is_compressed=True),
        ),
        with_exif("WEBP", f"prompt:{PROMPT}", f"workflow:{WORKFLOW}"),
        with_exif("WEBP", f"Prompt:{PROMPT}", f"Workflow:{WORKFLOW}"),
        with_exif("JPEG", f"prompt:{PROMPT}", f"workflow:{WORKFLOW}"),
    ],
)
def test_both_formats_are_found(picture: bytes) -> None:
    assert is_picture(picture)
    assert embedded_workflow(picture) == (GRAPH, FILE)


def test_an_animated_png_has_them_after_the_pixels() -> None:
    texts = (
        chunk(b"comf", f"{name}\0{text}".encode())
        for name, text in (("prompt", PROMPT), ("workflow", WORKFLOW))
    )
    picture = png()
    end = picture.index(b"\0\0\0\0IEND")
    assert embedded_workflow(picture[:end] + b"".join(texts) + picture[end:]) == (GRAPH, FILE)


def test_one_of_them_will_do() -> None:
    assert embedded_workflow(png(text("prompt", PROMPT))) == (GRAPH, None)
    assert embedded_workflow(png(text("workflow", WORKFLOW))) == (None, FILE)
    assert embedded_workflow(with_exif("WEBP", "no colon", f"workflow:{WORKFLOW}")) == (None, FILE)


def test_broken_exif_does_not_hide_a_text() -> None:
    for exif in (b"", b"MM\0*\0\0\0\x08\xff\xff"):
        assert embedded_workflow(png(chunk(b"eXIf", exif), text("prompt", PROMPT))) == (GRAPH, None)


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (png(), "no workflow inside"),
        (with_exif("WEBP", "other:{}"), "no workflow inside"),
        (png(text("prompt", "{")), "not JSON"),
        (png(text("prompt", "[" * 900_000)), "not JSON"),
        (png(text("prompt", "9" * 90_000)), "not JSON"),
        (png(chunk(b"zTXt", b"prompt\0\0broken")), "not JSON"),
        (png()[:20], "cannot be read"),
        (b"\x89PNG\r\n\x1a\n", "cannot be read"),
        (b"RIFF", "cannot be read"),
        (b"\xff\xd8\xff", "cannot be read"),
        (png(text("prompt", PROMPT), width=2**31 - 1, height=2**31 - 1), "too large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_no_workflow_is_refused_in_words(picture: bytes, words: str) -> None:
    assert_refused_soon(picture, words)


@pytest.mark.parametrize(
    "make",  # when the test runs: every worker collects it
    [
        lambda: png(compressed("prompt", b"[" * 300_000_000)),
        lambda: png(international("prompt", b"[" * 300_000_000, is_compressed=True)),
        lambda: png(*[compressed(f"a{n}", b"x" * 1_000_000) for n in range(80)]),
    ],
    ids=["zTXt", "iTXt", "many"],
)
def test_a_picture_that_grows_when_it_is_unpacked_is_refused(make: Callable[[], bytes]) -> None:
    assert_refused_soon(make(), "cannot be read")


def assert_refused_soon(picture: bytes, words: str) -> None:
    began = time.process_time()
    with pytest.raises(InvalidGraph, match=words):
        embedded_workflow(picture)
    assert time.process_time() - began < 10.0
