"""Reader of the texts in the metadata of media files. ComfyUI stores the workflow there as it does in
pictures.

| format | place of the texts |
| --- | --- |
| MP4, MOV | `moov/udta/meta` or `moov/meta`: names in `keys`, values in `ilst`; `©cmt` without names |
| WEBM, MKV | `Tags/Tag/SimpleTag` |
| FLAC, OGG, OPUS | Vorbis comments |
| MP3 | ID3v2 frames `TXXX` |
| GLB | `asset.extras` of the JSON chunk |
| SAFETENSORS | `__metadata__` of the header |
| SVG | a CDATA section with a JSON object |

Libraries do not fit: PyAV and ffmpeg are large, mutagen reads neither the `keys` of MP4 nor WEBM. Every
reader skips the media data, so a file of any size is read in a moment.
"""

import json
import re
import struct
from collections.abc import Callable, Iterator
from io import SEEK_CUR, SEEK_END
from typing import Any, BinaryIO

from comfyui_workflow.parsing.untrusted import as_object

HEAD_BYTES = 64
LARGEST_METADATA_BYTES = 64 * 1024 * 1024
MOST_ELEMENTS = 500_000
"""Maximum number of boxes, elements or pages that are visited in one file."""

Text = tuple[str, Any]
"""Name in lower case; value: a text, or a JSON value."""
_Reader = Callable[[BinaryIO], Iterator[Text]]


class MetadataUnreadable(Exception):
    """The file is not valid in its format."""


def metadata_reader(head: bytes) -> _Reader | None:
    """Returns the reader for a file that begins with `head` (`HEAD_BYTES`); None for any other format. The
    reader raises MetadataUnreadable or OSError."""
    if head[4:8] == b"ftyp" and head[8:12] not in _PICTURE_BRANDS:
        return _checked(_mp4_texts)
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= LARGEST_METADATA_BYTES:
        return _checked(_safetensors_texts)
    return next((_checked(reader) for begin, reader in _BY_SIGNATURE if re.match(begin, head)), None)


def _checked(reader: _Reader) -> _Reader:
    """Converts the errors of a reader to MetadataUnreadable."""

    def read(file: BinaryIO) -> Iterator[Text]:
        try:
            yield from reader(file)
        except (struct.error, ValueError, IndexError, RecursionError) as error:
            raise MetadataUnreadable(str(error)) from error

    return read


def _mp4_texts(file: BinaryIO) -> Iterator[Text]:
    end = _size(file)
    for kind, start, size in _boxes_of_file(file, end):
        if kind == b"moov":
            file.seek(start)
            moov = _read(file, size)
            for path in (b"udta", b"meta"), (b"meta",):
                yield from (text for meta in _find(moov, *path) for text in _meta_texts(meta))
            return


def _boxes_of_file(file: BinaryIO, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields (type, start of the content, size of the content) of each top-level box."""
    position = 0
    for _ in range(MOST_ELEMENTS):
        if position + 8 > end:
            return
        file.seek(position)
        size, kind = struct.unpack(">I4s", _read(file, 8))
        header = 8
        if size == 1:
            size, header = struct.unpack(">Q", _read(file, 8))[0], 16
        elif size == 0:
            size = end - position
        if size < header or position + size > end:
            raise ValueError("a box is longer than the file")
        yield kind, position + header, size - header
        position += size


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        if size < 8:
            return
        yield kind, data[position + 8 : position + size]
        position += size


def _find(data: bytes, kind: bytes, *rest: bytes) -> Iterator[bytes]:
    for found, content in _boxes(data):
        if found == kind:
            yield from _find(content, *rest) if rest else (content,)


def _meta_texts(meta: bytes) -> Iterator[Text]:
    content = meta if meta[4:8] == b"hdlr" else meta[4:]  # QuickTime's own has no version
    names = [name for keys in _find(content, b"keys") for name in _key_names(keys)]
    for items in _find(content, b"ilst"):
        for kind, item in _boxes(items):
            number = int.from_bytes(kind, "big")
            name = names[number - 1] if 1 <= number <= len(names) else _ITUNES_NAMES.get(kind)
            for value in _find(item, b"data") if name else ():
                yield name or "", _text(value[8:])


def _key_names(keys: bytes) -> Iterator[str]:
    for _, name in _boxes(keys[8:]):
        yield _text(name).lower()


def _matroska_texts(file: BinaryIO) -> Iterator[Text]:
    end = _size(file)
    file.seek(0)
    for _ in range(MOST_ELEMENTS):
        start = file.tell()
        if start >= end:
            return
        element, size = _element_id(file), _element_size(file)
        if element == _TAGS and size is not None:
            yield from _tag_texts(_read(file, size))
        elif size is not None and element != _SEGMENT:
            file.seek(size, SEEK_CUR)  # a live recording has elements of unknown size: they are entered


def _element_id(file: BinaryIO) -> bytes:
    first = _read(file, 1)
    return first + _read(file, _length_of_number(first[0]) - 1)


def _element_size(file: BinaryIO) -> int | None:
    """Reads the size of an element; None if it is unknown."""
    first = _read(file, 1)
    length = _length_of_number(first[0])
    number = int.from_bytes(bytes([first[0] & (0xFF >> length)]) + _read(file, length - 1), "big")
    return None if number == (1 << (7 * length)) - 1 else number


def _length_of_number(first: int) -> int:
    if first == 0:
        raise ValueError("an element has no valid length")
    return 9 - first.bit_length()


def _tag_texts(tags: bytes) -> Iterator[Text]:
    for tag in _elements(tags, _TAG):
        for simple in _elements(tag, _SIMPLE_TAG):
            name, value = next(_elements(simple, _TAG_NAME), b""), next(_elements(simple, _TAG_STRING), b"")
            yield _text(name).lower(), _text(value)


def _elements(data: bytes, wanted: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(data):
        length = _length_of_number(data[position])
        element, position = data[position : position + length], position + length
        length = _length_of_number(data[position])
        size = int.from_bytes(data[position : position + length], "big") & ((1 << (7 * length)) - 1)
        position += length
        if element == wanted:
            yield data[position : position + size]
        position += size


def _flac_texts(file: BinaryIO) -> Iterator[Text]:
    file.seek(4)
    is_last = False
    while not is_last:
        head = _read(file, 4)
        is_last, kind, size = bool(head[0] & 0x80), head[0] & 0x7F, int.from_bytes(head[1:], "big")
        if kind == _VORBIS_BLOCK:
            yield from _vorbis_comments(_read(file, size))
        else:
            file.seek(size, SEEK_CUR)


def _ogg_texts(file: BinaryIO) -> Iterator[Text]:
    """Reads the second packet, which holds the comments, from its pages."""
    file.seek(0)
    packets, packet = 0, b""
    for _ in range(MOST_ELEMENTS):
        head = _read(file, 27)
        if head[:4] != b"OggS":
            raise ValueError("a page has no signature")
        for length in _read(file, head[26]):
            packet += _read(file, length)
            if length < 255:  # the end of the packet
                packets += 1
                if packets == 2:
                    begin = next(
                        (each for each in (b"OpusTags", b"\x03vorbis") if packet.startswith(each)), b""
                    )
                    yield from _vorbis_comments(packet[len(begin) :]) if begin else ()
                    return
                packet = b""
        if len(packet) > LARGEST_METADATA_BYTES:
            raise ValueError("the comments are too large")


def _vorbis_comments(data: bytes) -> Iterator[Text]:
    (length,) = struct.unpack_from("<I", data)
    position = 4 + length
    (count,) = struct.unpack_from("<I", data, position)
    position += 4
    for _ in range(min(count, MOST_ELEMENTS)):
        (length,) = struct.unpack_from("<I", data, position)
        name, _, value = _text(data[position + 4 : position + 4 + length]).partition("=")
        position += 4 + length
        yield name.lower(), value


def _id3_texts(file: BinaryIO) -> Iterator[Text]:
    file.seek(0)
    head = _read(file, 10)
    major, size = head[3], _seven_bits(head[6:10])
    data, position = _read(file, size), 0
    while position + 10 <= len(data) and data[position]:
        kind, length = data[position : position + 4], data[position + 4 : position + 8]
        count = _seven_bits(length) if major >= 4 else int.from_bytes(length, "big")
        frame = data[position + 10 : position + 10 + count]
        if kind == b"TXXX" and frame:
            text = frame[1:].decode(_ID3_ENCODINGS.get(frame[0], "utf-8"), "replace")
            name, _, value = text.partition("\0")
            yield name.lstrip("\ufeff").lower(), value.lstrip("\ufeff").rstrip("\0")
        position += 10 + count


def _seven_bits(data: bytes) -> int:
    return sum((byte & 0x7F) << (7 * (3 - at)) for at, byte in enumerate(data))


def _glb_texts(file: BinaryIO) -> Iterator[Text]:
    file.seek(12)
    size, kind = struct.unpack("<I4s", _read(file, 8))
    if kind == b"JSON":
        extras = as_object(as_object(json.loads(_read(file, size))).get("asset")).get("extras")
        yield from as_object(extras).items()


def _safetensors_texts(file: BinaryIO) -> Iterator[Text]:
    file.seek(0)
    (size,) = struct.unpack("<Q", _read(file, 8))
    yield from as_object(as_object(json.loads(_read(file, size))).get("__metadata__")).items()


def _svg_texts(file: BinaryIO) -> Iterator[Text]:
    file.seek(0)
    content = _text(file.read(LARGEST_METADATA_BYTES))
    for found in re.finditer(r"<!\[CDATA\[\s*(\{.*?)\]\]>", content, re.DOTALL):
        yield from as_object(json.loads(found[1])).items()


def _size(file: BinaryIO) -> int:
    return file.seek(0, SEEK_END)


def _read(file: BinaryIO, size: int) -> bytes:
    """Raises: ValueError if the file ends before, or if this is too much for metadata."""
    if size > LARGEST_METADATA_BYTES:
        raise ValueError("the metadata is too large")
    data = file.read(size)
    if len(data) < size:
        raise ValueError("the file is cut short")
    return data


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").rstrip("\0")


_PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
_ITUNES_NAMES = {b"\xa9cmt": "comment"}
_SEGMENT, _TAGS = b"\x18\x53\x80\x67", b"\x12\x54\xc3\x67"
_TAG, _SIMPLE_TAG, _TAG_NAME, _TAG_STRING = b"\x73\x73", b"\x67\xc8", b"\x45\xa3", b"\x44\x87"
_VORBIS_BLOCK = 4
_ID3_ENCODINGS = {0: "latin-1", 1: "utf-16", 2: "utf-16-be"}
_BY_SIGNATURE: tuple[tuple[bytes, _Reader], ...] = (
    (rb"\x1aE\xdf\xa3", _matroska_texts),
    (rb"fLaC", _flac_texts),
    (rb"OggS", _ogg_texts),
    (rb"ID3", _id3_texts),
    (rb"glTF", _glb_texts),
    (rb"(?:\xef\xbb\xbf)?\s*<(?:\?xml|svg|!DOCTYPE svg)", _svg_texts),
)
