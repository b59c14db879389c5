"""Checks that a file has the length that its own content declares. A full disk or a killed process may leave
an incomplete file on the instance, which is then transferred without an error.

Only for formats that declare their length: PNG, RIFF (WEBP, WAV, AVI), MP4 and MOV, GLB. Other files, and
files that do not declare a length, are accepted.
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from comfyui_workflow.runs.model import FileType

EMPTY = "it is empty on the instance"
CUT_SHORT = "it is cut short on the instance"
_MAY_BE_EMPTY = (FileType.TEXT, FileType.OTHER)
_SMALLEST_PLACEHOLDER = 0x7FFF0000
"""Encoders that write a stream do not know its length in advance. They write 0, or a value near the largest
one: 0x7FFFF000 (SoX), 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF (ffmpeg), plus the size of the header."""
_PNG = b"\x89PNG\r\n\x1a\n"
_LONG_BOX, _BOX_TO_THE_END = 1, 0


def shortfall(path: Path, file_type: FileType) -> str | None:
    """Returns why the file is incomplete; None if no sign of that is found. Raises: OSError."""
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes == 0:
            return None if file_type in _MAY_BE_EMPTY else EMPTY
        is_complete = _reader(file.read(12))
        if is_complete is None or is_complete(file, size_bytes):
            return None
    return f"{CUT_SHORT}, after {size_bytes} bytes"


def _reader(head: bytes) -> Callable[[BinaryIO, int], bool] | None:
    if head.startswith(_PNG):
        return _has_png_end
    if head.startswith(b"RIFF"):
        return _has_riff_length
    if head.startswith(b"glTF"):
        return _has_glb_length
    if head[4:8] == b"ftyp":
        return _has_whole_boxes
    return None


def _has_png_end(file: BinaryIO, size_bytes: int) -> bool:
    """Reads the chunks up to IEND, which ends the picture. Data after it is ignored."""
    position = len(_PNG)
    while position + 12 <= size_bytes:
        file.seek(position)
        length = _number(file, ">I") or 0
        is_last = file.read(4) == b"IEND"
        position += 12 + length
        if is_last:
            return position <= size_bytes
    return False


def _has_riff_length(file: BinaryIO, size_bytes: int) -> bool:
    file.seek(4)
    length = _number(file, "<I")
    return length is None or length >= _SMALLEST_PLACEHOLDER or 8 + length <= size_bytes


def _has_glb_length(file: BinaryIO, size_bytes: int) -> bool:
    file.seek(8)
    length = _number(file, "<I")
    return length is not None and length <= size_bytes


def _has_whole_boxes(file: BinaryIO, size_bytes: int) -> bool:
    """Reads the top-level boxes. The last one may extend to the end of the file. Data that is not a valid box
    is accepted as a trailer."""
    position = 0
    while position + 8 <= size_bytes:
        file.seek(position)
        length, header_bytes = _number(file, ">I"), 8
        if length == _LONG_BOX:
            file.seek(position + 8)
            length, header_bytes = _number(file, ">Q"), 16
        elif length == _BOX_TO_THE_END:
            return True
        if length is None or length < header_bytes:
            return True
        position += length
    return position <= size_bytes


def _number(file: BinaryIO, kind: str) -> int | None:
    wanted_bytes = struct.calcsize(kind)
    data = file.read(wanted_bytes)
    return struct.unpack(kind, data)[0] if len(data) == wanted_bytes else None
