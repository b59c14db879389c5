"""Whether a file is as long as it says itself: what a full disk or a killed process left on the instance is a
valid transfer of a broken picture, and nobody but the file can tell.

Only formats that say where they end: PNG, RIFF (WEBP, WAV, AVI), MP4 and MOV, GLB. Whatever else is there is
taken as it is, and so is what a file does not say.
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from comfyui_workflow.runs.model import FileType

_MAY_BE_EMPTY = (FileType.TEXT, FileType.OTHER)
_UNKNOWN_LENGTHS = (0, 0xFFFFFFFF)
"""What those write who do not know the length beforehand."""
_PNG = b"\x89PNG\r\n\x1a\n"
_LONG_BOX, _BOX_TO_THE_END = 1, 0


def shortfall(path: Path, file_type: FileType) -> str | None:
    """Why the file cannot be whole; None when nothing speaks against it. Raises: OSError."""
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes == 0:
            return None if file_type in _MAY_BE_EMPTY else "it is empty on the instance"
        reads_to_its_end = _reader(file.read(12))
        if reads_to_its_end is None or reads_to_its_end(file, size_bytes):
            return None
    return f"it is cut short on the instance, after {size_bytes} bytes"


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
    """Chunk after chunk, to the one that ends it; what comes behind that is nobody's business."""
    place = len(_PNG)
    while place + 12 <= size_bytes:
        file.seek(place)
        length = _number(file, ">I") or 0
        is_last = file.read(4) == b"IEND"
        place += 12 + length
        if is_last:
            return place <= size_bytes
    return False


def _has_riff_length(file: BinaryIO, size_bytes: int) -> bool:
    file.seek(4)
    length = _number(file, "<I")
    return length in _UNKNOWN_LENGTHS or length is None or 8 + length <= size_bytes


def _has_glb_length(file: BinaryIO, size_bytes: int) -> bool:
    file.seek(8)
    length = _number(file, "<I")
    return length is not None and length <= size_bytes


def _has_whole_boxes(file: BinaryIO, size_bytes: int) -> bool:
    """Box after box; the last one may say that it goes on to the end. What cannot be a box is a tail."""
    place = 0
    while place + 8 <= size_bytes:
        file.seek(place)
        length, header_bytes = _number(file, ">I"), 8
        if length == _LONG_BOX:
            file.seek(place + 8)
            length, header_bytes = _number(file, ">Q"), 16
        elif length == _BOX_TO_THE_END:
            return True
        if length is None or length < header_bytes:
            return True
        place += length
    return place <= size_bytes


def _number(file: BinaryIO, kind: str) -> int | None:
    wanted_bytes = struct.calcsize(kind)
    data = file.read(wanted_bytes)
    return struct.unpack(kind, data)[0] if len(data) == wanted_bytes else None
