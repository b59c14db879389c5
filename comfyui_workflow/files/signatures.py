"""Checks that the first bytes of a file fit its name. A login page or an error text under the name of a
picture is a successful transfer of wrong content.

Libraries that guess a format (`filetype`, `puremagic`) do not fit: they return the one format they recognise,
and none for an MP4 brand or a kind of MP3 that they do not list. Here a file is refused only if its first
bytes fit no format of the family of its name. So a rare variant of a format is accepted, and so is a JPEG
under the name of a PNG. JSON has no check, because nodes like SaveText write any text under that name.
"""

import re
from pathlib import PurePosixPath

HEAD_BYTES = 4096
"""Number of bytes that `mismatch` needs."""

_ISO_MEDIA = rb"....(?:ftyp|moov|mdat|free|skip|wide|pnot|jP  |JXL )"
_ZIP = rb"PK(?:\x03\x04|\x05\x06|\x07\x08)"
_RIFF = rb"(?:RIFF|RIFX|RF64)...."

_FAMILIES: dict[str, tuple[str, bytes]] = {
    "png jpg jpeg jpe jfif webp gif bmp tif tiff apng avif heic heif exr hdr psd ico qoi jxl jp2 dds": (
        "picture",
        rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8|BM|II\*\x00|MM\x00\*|II\+\x00|MM\x00\+|v/1\x01|#\?|8BP[SB]|\x00\x00\x01\x00|qoif"
        rb"|\xff\x0a|\xff\x4f\xff\x51|DDS |" + _RIFF + rb"WEBP|" + _ISO_MEDIA,
    ),
    "mp4 m4v mov webm mkv avi": (
        "video",
        _ISO_MEDIA + rb"|\x1aE\xdf\xa3|OggS|\x47.{187}\x47|\x00\x00\x01[\xb3\xba]|" + _RIFF + rb"AVI ",
    ),
    "wav flac mp3 ogg oga opus m4a aac aif aiff": (
        "sound",
        rb"fLaC|ID3|\x00*\xff[\xe0-\xff]|OggS|FORM....AIF|\x1aE\xdf\xa3|riff|"
        + _ISO_MEDIA
        + b"|"
        + _RIFF
        + b"WAVE",
    ),
    "glb": ("3D model", rb"glTF"),
    "gltf": ("3D model", rb"(?:\xef\xbb\xbf)?\s*\{"),
    "ply": ("3D model", rb"ply\s"),
    "usdz": ("3D model", _ZIP),
    "svg": ("picture", rb"(?:\xef\xbb\xbf)?\s*<"),
    "zip npz": ("archive", _ZIP),
    "npy": ("array", rb"\x93NUMPY"),
    "safetensors latent": ("safetensors file", rb".{8}\s*\{"),
    "gguf": ("model", rb"GGUF"),
    "pdf": ("PDF", rb".{0,1024}?%PDF"),
}
_BY_ENDING = {
    ending: (what, re.compile(begins, re.DOTALL))
    for endings, (what, begins) in _FAMILIES.items()
    for ending in endings.split()
}
_PAGES = ("html", "htm", "xhtml", "shtml", "mhtml")
_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)[\s>]",
    re.DOTALL | re.IGNORECASE,
)
_SHOWN_BYTES = 40


def mismatch(head: bytes, filename: str) -> str | None:
    """Returns why the first `HEAD_BYTES` of a file do not fit its name; None if they fit. A name with an
    unknown ending fits everything except a web page."""
    ending = PurePosixPath(filename).suffix.lower().lstrip(".")
    if ending not in _PAGES and _PAGE.match(head):
        return "the instance sent a web page (a login, or an error) instead of this file"
    promised = _BY_ENDING.get(ending)
    if promised is None or not head or promised[1].match(head):
        return None
    begins = head[:_SHOWN_BYTES].decode("ascii", "replace").replace("\ufffd", "?")
    shown = "".join(letter if letter.isprintable() else "?" for letter in begins)
    return f"the file is no {promised[0]}, although its name says so: it begins with {shown!r}"
