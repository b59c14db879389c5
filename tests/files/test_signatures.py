"""First bytes that a file may have, by its name."""

import io
import struct

import pytest
from PIL import Image

from comfyui_workflow.files.signatures import HEAD_BYTES, mismatch

PAGE = b"\n<!DOCTYPE html>\n<html><body>Log in</body></html>"


def picture(image_format: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, image_format)
    return file.getvalue()[:HEAD_BYTES]


WHAT_NODES_WRITE = {
    **{f"a.{ending}": picture(name) for ending, name in {
        "png": "PNG", "jpg": "JPEG", "JPEG": "JPEG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP",
        "tiff": "TIFF", "ico": "ICO", "avif": "AVIF",
    }.items()},
    "a JPEG of this name.png": picture("JPEG"),
    "a.exr": b"v/1\x01\x02\0\0\0", "a.hdr": b"#?RADIANCE\n", "a.psd": b"8BPS\0\1",
    "a.mp4": b"\0\0\0\x20ftypiso5", "old.mov": b"\0\0\0\x08wide\0\0", "a.m4v": b"\0\0\0\x20ftypM4V ",
    "a.webm": b"\x1aE\xdf\xa3\x01", "a.mkv": b"\x1aE\xdf\xa3\x01", "a.avi": b"RIFF\0\0\0\0AVI LIST",
    "a.wav": b"RIFF\xff\xff\xff\xffWAVEfmt ", "long.wav": b"RF64\xff\xff\xff\xffWAVEds64",
    "a.flac": b"fLaC\0",
    "a.mp3": b"ID3\x04", "bare.mp3": b"\xff\xfb\x90\x64", "a.ogg": b"OggS\0\2", "a.opus": b"OggS\0\2",
    "a.aac": b"\xff\xf1\x50", "a.m4a": b"\0\0\0\x20ftypM4A ",
    "a.glb": b"glTF\2\0\0\0", "a.gltf": b' {"asset":{}}', "a.obj": b"# Blender\nv 0 0 0",
    "a.ply": b"ply\nformat",
    "a.zip": b"PK\3\4", "empty.npz": b"PK\5\6", "a.npy": b"\x93NUMPY\1\0",
    "a.safetensors": struct.pack("<Q", 60) + b'{"__metadata__"', "a.latent": struct.pack("<Q", 60) + b"{",
    "a.pdf": b"%PDF-1.7", "a.svg": b"<?xml version='1.0'?><svg>", "a.json": b"[1]", "empty.json": b"",
    "any text.json": b"Hello {world}", "any text.md": b"<svg>", "any text.csv": b"a;b",
    "a.txt": b"302: Found", "page.html": PAGE, "a.xyz": b"whatever", "no ending": b"\0\1",
    "a.stl": b"solid x",
}  # fmt: skip


@pytest.mark.parametrize("name", WHAT_NODES_WRITE)
def test_what_nodes_write_is_taken(name: str) -> None:
    assert mismatch(WHAT_NODES_WRITE[name], name) is None


FORMATS = (
    "png jpg jpeg webp gif bmp tif tiff exr psd mp4 mov m4v webm mkv avi wav flac mp3 ogg opus m4a glb gltf "
    "zip npz npy safetensors latent pdf svg ply"
)


@pytest.mark.parametrize("ending", FORMATS.split())
def test_a_line_of_text_is_no_file_of_a_format(ending: str) -> None:
    why = mismatch(b"302: Found", f"a.{ending}")
    assert why is not None and "begins with '302: Found'" in why


@pytest.mark.parametrize(
    "page",
    [
        PAGE, b"\xef\xbb\xbf<html lang=en>", b"<!-- hello --><HTML>",
        b"<?xml version='1.0'?>\n<!DOCTYPE html>",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.png", "a.svg", "a.json", "a.obj", "a.txt", "a.xyz", "no ending"])
def test_a_page_is_nothing_but_a_page(page: bytes, name: str) -> None:
    why = mismatch(page, name)
    assert why is not None and "web page" in why


def test_what_it_begins_with_is_told_in_letters_that_can_be_shown() -> None:
    why = mismatch(b"\x1b[2J\x00\xff\nhello", "a.png")
    assert why is not None and "\x1b" not in why and "\n" not in why
