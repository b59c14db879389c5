"""Several PNG files as one animated PNG (APNG), without decoding them.

LoadImage of ComfyUI turns the frames of an animated PNG into one batch of pictures, so one node loads all
pictures of a collector. The compressed data of each file becomes one frame that replaces the whole picture.
Frames of one animation have one header, so a file of another size or kind begins a new animation (`groups`),
and a file that is no plain 8-bit RGB or RGBA picture stays alone.

Format: https://www.w3.org/TR/png-3/
"""

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from comfyui_workflow.errors import CollectedFileDamaged

SIGNATURE = b"\x89PNG\r\n\x1a\n"
RGB, RGBA = 2, 6
"""Colour types that SaveImage writes."""
KINDS_WITH_ALPHA = (4, RGBA)
PLAIN_CHUNKS = frozenset(
    (
        b"IHDR",
        b"IDAT",
        b"IEND",
        b"tEXt",
        b"zTXt",
        b"iTXt",
        b"tIME",
        b"pHYs",
        b"sRGB",
        b"gAMA",
        b"cHRM",
        b"iCCP",
    )
)
"""Chunks of a file that can be a frame; all but the first three are left out. LoadImage does not read
them."""
PIECE_BYTES = 1 << 20
LONGEST_CHUNK = (1 << 31) - 5
"""A frame's chunk is four bytes longer than the chunk that it is made of."""
REPLACES_ALL = (0, 0)
"""Disposal and blending of a frame."""


@dataclass(frozen=True, kw_only=True)
class Png:
    """What the header of a PNG file says."""

    path: Path
    header: bytes
    """Content of its IHDR chunk: 13 bytes."""
    width: int
    height: int
    count: int
    """Number of pictures: more than one in an animated file."""
    has_alpha: bool
    is_plain: bool
    """Whether the file can be a frame of an animation."""


def read_png(path: Path) -> Png:
    """Reads all chunks but not the picture. Raises: CollectedFileDamaged, naming the file, and OSError."""
    with path.open("rb") as file:
        chunks = _Chunks(path, file)
        header, kinds, frames = b"", set(), 1
        for kind, length in chunks:
            kinds.add(kind)
            if kind == b"IHDR":
                header = chunks.read(length)
            elif kind == b"acTL":
                frames = int.from_bytes(chunks.read(length)[:4], "big")
    if len(header) != 13 or b"IDAT" not in kinds:
        raise CollectedFileDamaged(f"{path.name} is not a whole PNG file")
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    if not width or not height:
        raise CollectedFileDamaged(f"{path.name} is a PNG file without a size")
    return Png(
        path=path,
        header=header,
        width=width,
        height=height,
        count=max(frames, 1),
        has_alpha=colour in KINDS_WITH_ALPHA or b"tRNS" in kinds,
        is_plain=depth == 8 and colour in (RGB, RGBA) and not interlace and kinds <= PLAIN_CHUNKS,
    )


def groups(pictures: Sequence[Png]) -> list[tuple[Png, ...]]:
    """Returns the pictures in their order, in groups of neighbours that can be one animation."""
    found: list[list[Png]] = []
    for picture in pictures:
        last = found[-1][-1] if found else None
        if last and picture.is_plain and last.is_plain and picture.header == last.header:
            found[-1].append(picture)
        else:
            found.append([picture])
    return [tuple(group) for group in found]


def write_animation(pictures: Sequence[Png], target: BinaryIO) -> None:
    """Writes one group as an animated PNG; a single picture as it is.

    Raises: CollectedFileDamaged, naming the file, and OSError.
    """
    if len(pictures) == 1:
        with pictures[0].path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                target.write(piece)
        return
    target.write(SIGNATURE)
    _write_chunk(target, b"IHDR", pictures[0].header)
    _write_chunk(target, b"acTL", struct.pack(">II", len(pictures), 0))
    sequence = 0
    for number, picture in enumerate(pictures):
        control = struct.pack(
            ">IIIIIHHBB", sequence, picture.width, picture.height, 0, 0, 1, 1, *REPLACES_ALL
        )
        _write_chunk(target, b"fcTL", control)
        sequence = _write_frame(target, picture, sequence + 1, is_first=number == 0)
    _write_chunk(target, b"IEND", b"")


def _write_frame(target: BinaryIO, picture: Png, sequence: int, *, is_first: bool) -> int:
    """Copies the compressed data of a picture: as IDAT in the first frame, else as fdAT with sequence
    numbers. Returns the next sequence number."""
    with picture.path.open("rb") as file:
        chunks = _Chunks(picture.path, file)
        for kind, length in chunks:
            if kind != b"IDAT" or not length:
                continue
            if is_first:
                _copy_chunk(target, chunks, b"IDAT", b"", length)
            else:
                _copy_chunk(target, chunks, b"fdAT", struct.pack(">I", sequence), length)
                sequence += 1
    return sequence


def _copy_chunk(target: BinaryIO, chunks: "_Chunks", kind: bytes, start: bytes, length: int) -> None:
    target.write(struct.pack(">I", len(start) + length) + kind + start)
    checksum = zlib.crc32(kind + start)
    for piece in chunks.pieces(length):
        checksum = zlib.crc32(piece, checksum)
        target.write(piece)
    target.write(struct.pack(">I", checksum))


def _write_chunk(target: BinaryIO, kind: bytes, content: bytes) -> None:
    target.write(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    )


class _Chunks:
    """Iterates over the chunks of a PNG file up to IEND. A chunk that is read is compared with its
    checksum."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._size_bytes = os.fstat(file.fileno()).st_size
        self._kind = b""

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        """Yields the kind and the length of each chunk."""
        if self._file.read(len(SIGNATURE)) != SIGNATURE:
            raise CollectedFileDamaged(f"{self._path.name} is not a PNG file")
        position = len(SIGNATURE)
        while self._kind != b"IEND":
            self._file.seek(position)
            head = self._file.read(8)
            length = int.from_bytes(head[:4], "big")
            position += 12 + length
            if len(head) < 8 or position > self._size_bytes or length > LONGEST_CHUNK:
                raise CollectedFileDamaged(f"{self._path.name} is cut short or damaged")
            self._kind = head[4:]
            yield self._kind, length

    def read(self, length: int) -> bytes:
        return b"".join(self.pieces(length))

    def pieces(self, length: int) -> Iterator[bytes]:
        """Yields the content of the present chunk."""
        checksum = zlib.crc32(self._kind)
        for start in range(0, length, PIECE_BYTES):
            piece = self._file.read(min(PIECE_BYTES, length - start))
            checksum = zlib.crc32(piece, checksum)
            yield piece
        if self._file.read(4) != struct.pack(">I", checksum):
            kind = self._kind.decode("ascii", "replace")
            raise CollectedFileDamaged(f"{self._path.name} is damaged: its {kind} chunk has another checksum")
