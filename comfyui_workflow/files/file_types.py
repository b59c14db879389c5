"""Kinds of files that ComfyUI nodes load, detected by content; the name is ignored.

Pictures, videos and sounds are detected by the signatures of `filetype`, which knows few brands of ISO media
files (MP4, MOV, HEIC, AVIF, M4A). Checks of this module detect every brand, further formats, 3D models, and
safetensors files, which contain latents.
"""

import json
import os
import re
import struct
import zlib
from enum import StrEnum
from pathlib import Path
from typing import Any

import filetype

HEAD_BYTES = 64 * 1024
LARGEST_JSON_BYTES = 16 * 1024 * 1024
"""Maximum size of a header or a glTF file, which is read completely."""
_SAFETENSORS_HEADER_BYTES = 100_000_000
_PICTURES = (
    b"\x76\x2f\x31\x01",  # OpenEXR
    b"\xff\x0a",  # JPEG XL
    b"\x00\x00\x00\x0cJXL \x0d\x0a\x87\x0a",
    b"\x00\x00\x00\x0cjP  \x0d\x0a\x87\x0a",  # JPEG 2000
    b"DDS ",
    b"qoif",
)
_ISO_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"skip", b"free", b"pnot")
_PICTURE_BRANDS = frozenset(
    {
        b"avif",
        b"avis",
        b"heic",
        b"heix",
        b"heim",
        b"heis",
        b"hevc",
        b"hevx",
        b"mif1",
        b"mif2",
        b"msf1",
        b"crx ",
    }
)
_SOUND_BRANDS = frozenset({b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B "})
_SOUNDS = re.compile(rb"#!AMR|caff\0|wvpk|MAC |RF64....WAVE|RIFX....WAVE", re.DOTALL)
_TRANSPORT_STREAM = re.compile(rb"(?:.{4})?\x47.{187}\x47.{187}\x47", re.DOTALL)
_BIG_TIFF = (b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0")
_USDZ = re.compile(rb"PK\x03\x04.{26}[^\0]{0,200}?\.usd[ac]?", re.DOTALL)
_GZIP, _GAUSSIANS = b"\x1f\x8b", b"NGSP"
_TEXT_PICTURE = re.compile(
    rb"#\?(RADIANCE|RGBE)\s|P[1-6]\s+(#[^\n]*\n\s*)*\d+\s+(#[^\n]*\n\s*)*\d+\s|P7\nWIDTH "
)
_TGA_FOOTER = b"TRUEVISION-XFILE.\0"
_MODEL = re.compile(
    rb"glTF[\x01\x02]\0\0\0|Kaydara FBX Binary  \0|ply\r?\n(comment [^\n]*\n)*format |; FBX |PXR-USDC|#usda "
)
_OBJ_LINE = re.compile(rb"(#.*|\s*|(v|vt|vn|vp|f|l|p|s|o|g|usemtl|mtllib|cstype|deg|curv|surf|parm|end)\s.*)")
_OBJ_VERTEX = re.compile(rb"v(\s+-?[\d.]+(e[+-]?\d+)?){3,}\s*", re.IGNORECASE)
_TEXT_CONTROLS = frozenset(b"\t\n\r\x0b\x0c\x1b")


class InputKind(StrEnum):
    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    MODEL_3D = "3d"
    LATENT = "latent"
    TEXT = "text"


def kind_of(path: Path) -> InputKind | None:
    """Detects the kind of a file; None if no node loads it. Raises: OSError."""
    with path.open("rb") as file:
        head, size = file.read(HEAD_BYTES), os.fstat(file.fileno()).st_size
        if _is_text(head, is_whole=size <= len(head)):
            return _kind_of_text(head, file.read(LARGEST_JSON_BYTES))
        if _is_safetensors(head, size, file.read(LARGEST_JSON_BYTES) if head[8:9] == b"{" else b""):
            return InputKind.LATENT
        if _MODEL.match(head) or _USDZ.match(head) or _is_binary_stl(head, size) or _is_spz(head):
            return InputKind.MODEL_3D
        return _kind_of_medium(head) or _kind_by_footer(path, size)


def usual_ending(content: bytes) -> str | None:
    """Returns the usual ending of a picture, video or sound, such as `.png`; None if it is none of them."""
    found = filetype.guess(content[:HEAD_BYTES])
    kind = _kind_of_medium(content[:HEAD_BYTES])
    if kind is None:
        return None
    is_medium = found is not None and str(found.mime).partition("/")[0] == kind
    return f".{found.extension}" if is_medium else _USUAL_ENDINGS[kind]


_USUAL_ENDINGS = {InputKind.IMAGE: ".png", InputKind.VIDEO: ".mp4", InputKind.AUDIO: ".wav"}


def _kind_of_medium(head: bytes) -> InputKind | None:
    if head.startswith((*_PICTURES, *_BIG_TIFF)) or _TEXT_PICTURE.match(head):
        return InputKind.IMAGE
    if head[4:8] in _ISO_BOXES:
        return _kind_of_iso_media(head)
    if _SOUNDS.match(head):
        return InputKind.AUDIO
    if _TRANSPORT_STREAM.match(head):
        return InputKind.VIDEO
    found = filetype.guess(head)
    medium = "" if found is None else str(found.mime).partition("/")[0]
    return InputKind(medium) if medium in (InputKind.IMAGE, InputKind.VIDEO, InputKind.AUDIO) else None


def _kind_of_iso_media(head: bytes) -> InputKind:
    """Returns the kind by the brand of the file; a file without a brand is a QuickTime video."""
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in _PICTURE_BRANDS:
        return InputKind.IMAGE
    return InputKind.AUDIO if brand in _SOUND_BRANDS else InputKind.VIDEO


def _is_spz(head: bytes) -> bool:
    """Detects SPZ: Gaussians, compressed with gzip."""
    if not head.startswith(_GZIP):
        return False
    try:
        return zlib.decompressobj(wbits=31).decompress(head, 4) == _GAUSSIANS
    except zlib.error:
        return False


def _kind_by_footer(path: Path, size: int) -> InputKind | None:
    """Detects Targa files, which have their signature at the end."""
    if size < len(_TGA_FOOTER):
        return None
    with path.open("rb") as file:
        file.seek(-len(_TGA_FOOTER), os.SEEK_END)
        return InputKind.IMAGE if file.read() == _TGA_FOOTER else None


def _kind_of_text(head: bytes, rest: bytes) -> InputKind | None:
    if _TEXT_PICTURE.match(head):
        return InputKind.IMAGE
    is_stl = head.startswith(b"solid") and b"facet normal" in head
    if _MODEL.match(head) or is_stl or _is_obj(head) or _is_gltf(head + rest):
        return InputKind.MODEL_3D
    return InputKind.TEXT if head else None


def _is_text(head: bytes, *, is_whole: bool) -> bool:
    """True for UTF-8 without control characters, and for UTF-16 with a byte order mark."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) and len(head) > 3:
        encoding = "utf-16"
    elif any(byte < 32 and byte not in _TEXT_CONTROLS for byte in set(head)):
        return False
    else:
        encoding = "utf-8"
    try:
        head.decode(encoding)
    except UnicodeDecodeError as error:
        # an incomplete character at the end of the read bytes
        return not is_whole and error.start >= len(head) - 4
    return True


def _is_safetensors(head: bytes, size: int, rest: bytes) -> bool:
    """Detects safetensors: a length, a JSON object of that length, the tensors."""
    if len(head) < 10:
        return False
    (length,) = struct.unpack_from("<Q", head)
    if not 2 <= length <= min(size - 8, _SAFETENSORS_HEADER_BYTES, LARGEST_JSON_BYTES):
        return False
    header = _object_in((head + rest)[8 : 8 + length])
    tensors = [each for name, each in header.items() if name != "__metadata__"]
    return bool(header) and all(isinstance(each, dict) and "data_offsets" in each for each in tensors)


def _is_binary_stl(head: bytes, size: int) -> bool:
    """Detects binary STL: 80 bytes of any content, the number of triangles, 50 bytes for each."""
    return len(head) >= 84 and struct.unpack_from("<I", head, 80)[0] * 50 + 84 == size > 84


def _is_obj(head: bytes) -> bool:
    """Detects OBJ: every line has the syntax of the format, and at least one is a vertex."""
    lines = head.splitlines()[: -1 if len(head) >= HEAD_BYTES else None]
    return all(map(_OBJ_LINE.fullmatch, lines)) and any(map(_OBJ_VERTEX.fullmatch, lines))


def _is_gltf(content: bytes) -> bool:
    if content.lstrip()[:1] != b"{":
        return False
    asset = _object_in(content).get("asset")
    return isinstance(asset, dict) and isinstance(asset.get("version"), str)


def _object_in(content: bytes) -> dict[str, Any]:
    """Parses a JSON object; returns an empty one if the content is not a JSON object."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
