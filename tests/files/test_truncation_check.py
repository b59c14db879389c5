"""A file that is cut off anywhere is refused; a complete one, with or without a trailer, never is."""

import io
import struct
from pathlib import Path

import pytest
from PIL import Image

from comfyui_workflow.files.truncation_check import shortfall
from comfyui_workflow.runs.model import FileType


def picture(image_format: str) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((40, 30), 60).convert("RGB").save(file, image_format)
    return file.getvalue()


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


MP4 = box(b"ftyp", b"isom\0\0\2\0") + box(b"moov", b"m" * 300) + box(b"mdat", b"d" * 500)
LONG_MP4 = box(b"ftyp", b"isom\0\0\2\0") + struct.pack(">I4sQ", 1, b"mdat", 516) + b"d" * 500
GLB = struct.pack("<4sII", b"glTF", 2, 112) + b"g" * 100
ENDS_OF_BOXES = 16 + 308
WHOLE = {
    "a.png": picture("PNG"),
    "a.webp": picture("WEBP"),
    "a.mp4": MP4,
    "long.mp4": LONG_MP4,
    "a.glb": GLB,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_is_whole(name: str, path: Path) -> None:
    path.write_bytes(WHOLE[name])
    assert shortfall(path, FileType.IMAGE) is None


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_cut_anywhere_behind_its_head_is_not(name: str, path: Path) -> None:
    content = WHOLE[name]
    for length in {*range(40, len(content) - 1, 7), len(content) - 1}:
        if name == "a.mp4" and 0 <= length - ENDS_OF_BOXES < 8:
            continue  # it could have been the last box
        path.write_bytes(content[:length])
        assert shortfall(path, FileType.IMAGE) == f"it is cut short on the instance, after {length} bytes"


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.glb", "a.mp4"])
def test_a_tail_does_no_harm(name: str, path: Path) -> None:
    path.write_bytes(WHOLE[name] + bytes(4) + b"ta")
    assert shortfall(path, FileType.IMAGE) is None


def test_what_does_not_say_its_length_is_taken_as_it_is(path: Path) -> None:
    streamed_wav = b"RIFF\xff\xff\xff\xffWAVEfmt "
    to_the_end = box(b"ftyp", b"isom\0\0\2\0") + struct.pack(">I4s", 0, b"mdat") + b"d"
    for content in (b"whatever", b"x", picture("JPEG")[:50], streamed_wav, to_the_end):
        path.write_bytes(content)
        assert shortfall(path, FileType.AUDIO) is None


def test_nothing_is_no_picture_but_may_be_a_text(path: Path) -> None:
    path.write_bytes(b"")
    assert shortfall(path, FileType.IMAGE) == "it is empty on the instance"
    assert shortfall(path, FileType.TEXT) is None
