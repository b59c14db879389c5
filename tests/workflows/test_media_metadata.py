"""The workflow inside videos, sounds and 3D models."""

import json
from io import BytesIO

import pytest

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.workflows.input_formats import read_given_stream, read_workflow_file
from tests.workflows import media
from tests.workflows.making import file, node
from tests.workflows.pictures import with_exif

GRAPH = {"1": {"class_type": "X", "inputs": {"text": "ä" * 60_000}}}
FILE = file(node(1, "X"))
TEXTS = {"prompt": json.dumps(GRAPH, ensure_ascii=False), "workflow": json.dumps(FILE)}
UPPER = {name.upper(): value for name, value in TEXTS.items()}
ESCAPED = [f"prompt:{json.dumps(GRAPH)}", f"workflow:{json.dumps(FILE)}"]
"""The texts as ComfyUI writes them into EXIF, which is ASCII."""
COMMENT = json.dumps({"prompt": TEXTS["prompt"], "workflow": FILE, "CreationTime": "now"})
FILES = {
    "mp4": media.mp4(TEXTS),
    "mp4 over 4 GB": media.mp4(TEXTS, is_long=True),
    "mov": media.mp4(TEXTS, is_quicktime=True),
    "mp4 with a comment": media.commented_mp4(COMMENT),
    "webm": media.webm(UPPER),
    "webm of a live recording": media.webm(UPPER, is_live=True),
    "webm with a comment": media.webm({"TITLE": "x", "COMMENT": COMMENT}),
    "webp": with_exif("WEBP", *ESCAPED),
    "avif": with_exif("AVIF", *ESCAPED),
    "flac": media.flac(TEXTS),
    "opus": media.opus(UPPER),
    "mp3": media.mp3(TEXTS),
    "mp3 of ID3v2.3": media.mp3(TEXTS, version=3),
    "glb": media.glb(TEXTS),
    "latent": media.safetensors(TEXTS),
    "svg": media.svg(TEXTS),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_comfyui_made_brings_its_workflow(kind: str) -> None:
    given = read_workflow_file(FILES[kind])
    assert given.graph == GRAPH
    assert given.editor_file == FILE


def test_only_the_metadata_of_a_long_video_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read_bytes = 0

    class Counted(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal read_bytes
            data = super().read(size)
            read_bytes += len(data)
            return data

    content = media.mp4(TEXTS).replace(media.box(b"mdat", b"\0" * 50), media.box(b"mdat", b"\0" * 90_000_000))
    assert read_given_stream(Counted(content)).workflow.graph == GRAPH
    assert read_bytes < 1_000_000


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind not in ("webp", "avif")])
def test_a_file_cut_anywhere_is_refused_in_words_or_has_its_workflow(kind: str) -> None:
    content = FILES[kind]
    for end in [*range(0, 200, 7), *range(200, len(content), 9973), len(content) - 1]:
        try:
            read_workflow_file(content[:end])
        except (InvalidGraph, ValueError) as error:
            assert str(error)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (media.mp4({}), "no workflow inside"),
        (media.mp4({"title": "x", "comment": "a walk"}), "no workflow inside"),
        (media.webm({"COMMENT": "{"}), "no workflow inside"),
        (media.mp4({"prompt": "{"}), "inside the file is not JSON"),
        (media.mp4(TEXTS)[:-9], "cannot be read"),
        (media.flac(TEXTS)[:-9], "cannot be read"),
        (media.glb({})[:14], "cannot be read"),
        (b"\x1aE\xdf\xa3\x00\x00\x00", "cannot be read"),
        (b"OggS" + b"\0" * 22 + b"\0" + b"Oggx" + b"\0" * 30, "cannot be read"),
    ],
)
def test_what_has_no_workflow_is_refused_in_words(content: bytes, words: str) -> None:
    with pytest.raises(InvalidGraph, match=words):
        read_workflow_file(content)
