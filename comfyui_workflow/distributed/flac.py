"""The header of a FLAC file, which SaveAudio writes. Format: RFC 9639."""

from dataclasses import dataclass
from pathlib import Path

from comfyui_workflow.errors import CollectedFileDamaged

STREAM_INFO = b"fLaC\x00\x00\x00\x22"
STREAM_INFO_ALONE = b"fLaC\x80\x00\x00\x22"
"""The start of a file: the marker, and a block of the kind 0 with 34 bytes, alone if it is the last block."""


@dataclass(frozen=True, kw_only=True)
class Flac:
    path: Path
    sample_rate: int
    channels: int
    samples: int
    """Of one channel; 0 if the file does not say it."""


def read_flac(path: Path) -> Flac:
    """Raises: CollectedFileDamaged, naming the file, and OSError."""
    with path.open("rb") as file:
        head = file.read(42)
    if len(head) < 42 or not head.startswith((STREAM_INFO, STREAM_INFO_ALONE)):
        raise CollectedFileDamaged(f"{path.name} is not a whole FLAC file")
    packed = int.from_bytes(head[18:26], "big")  # 20 bits rate, 3 channels - 1, 5 depth - 1, 36 samples
    return Flac(
        path=path,
        sample_rate=packed >> 44,
        channels=(packed >> 41 & 7) + 1,
        samples=packed & ((1 << 36) - 1),
    )
