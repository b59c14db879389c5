"""Builders of pictures with text chunks or EXIF texts."""

import struct
import zlib
from io import BytesIO

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def text(name: str, content: str | bytes) -> bytes:
    raw = content.encode("latin-1") if isinstance(content, str) else content
    return chunk(b"tEXt", name.encode() + b"\0" + raw)


def compressed(name: str, content: bytes) -> bytes:
    return chunk(b"zTXt", name.encode() + b"\0\0" + zlib.compress(content))


def international(name: str, content: bytes, *, is_compressed: bool) -> bytes:
    packed = zlib.compress(content) if is_compressed else content
    return chunk(b"iTXt", name.encode() + (b"\0\1" if is_compressed else b"\0\0") + b"\0\0\0" + packed)


def png(*chunks: bytes, width: int = 1, height: int = 1) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0\0\0\0"))
    return SIGNATURE + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def with_exif(kind: str, *fields: str) -> bytes:
    """Returns a WEBP or JPEG with texts in the EXIF fields that ComfyUI uses for prompt and workflow."""
    exif = Image.Exif()
    for number, field in zip((0x0110, 0x010F), fields, strict=False):
        exif[number] = field
    content = BytesIO()
    Image.new("RGB", (1, 1)).save(content, kind, exif=exif)
    return content.getvalue()
