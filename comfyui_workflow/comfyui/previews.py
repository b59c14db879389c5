"""Pictures that ComfyUI sends in binary frames on its websocket: previews while it samples, and the results
of nodes like SaveImageWebsocket.

u32 1, u32 format, picture            for a socket without feature flags; and before 0.3.45
u32 4, u32 length, JSON, picture      the JSON has the ids of the prompt and the node
"""

import struct
from dataclasses import dataclass

from comfyui_workflow.comfyui.messages import Message, prompt_id_of
from comfyui_workflow.parsing.untrusted import as_object, as_text, read_json, shown

_HEAD = struct.Struct(">II")
_WITHOUT_IDS, _WITH_METADATA = 1, 4
_LONGEST_METADATA_BYTES = 64 * 1024
"""A few ids have some hundred bytes. Longer JSON is not parsed: it could become a gigabyte of values."""


@dataclass(frozen=True, kw_only=True)
class PreviewSource:
    prompt_id: str
    node_id: str


@dataclass(frozen=True, kw_only=True)
class Preview:
    place: PreviewSource
    content_type: str
    """Detected from the first bytes; always an image type."""
    picture: bytes


class PreviewReader:
    """Reads the binary frames of one socket. A frame without ids belongs to the node of the last message on
    the same socket."""

    def __init__(self) -> None:
        self._place: PreviewSource | None = None

    def observe(self, message: Message) -> None:
        if message.get("type") in ("execution_start", "executing", "progress"):
            data = as_object(message.get("data"))
            self._place = _place(prompt_id_of(message), data.get("display_node") or data.get("node"))

    def read(self, frame: bytes) -> Preview | None:
        """Returns None if the frame is no preview. The picture may be large: some nodes send their results
        in this way."""
        if len(frame) < _HEAD.size:
            return None
        kind, length = _HEAD.unpack_from(frame)
        if kind == _WITHOUT_IDS:
            return _preview(self._place, frame[_HEAD.size :])
        if kind == _WITH_METADATA and length <= _LONGEST_METADATA_BYTES:
            start = _HEAD.size + length
            return _preview(_place_in(frame[_HEAD.size : start]), frame[start:])
        return None


def _preview(place: PreviewSource | None, picture: bytes) -> Preview | None:
    content_type = _picture_type(picture)
    if place is None or content_type is None:
        return None
    return Preview(place=place, content_type=content_type, picture=picture)


def _place(prompt_id: object, node_id: object) -> PreviewSource | None:
    if not (isinstance(prompt_id, str) and isinstance(node_id, str)):
        return None
    return PreviewSource(prompt_id=prompt_id, node_id=shown(node_id))


def _place_in(metadata: bytes) -> PreviewSource | None:
    try:
        about = as_object(read_json(metadata))
    except ValueError:
        return None
    return _place(about.get("prompt_id"), as_text(about.get("display_node_id")) or about.get("node_id"))


def _picture_type(content: bytes) -> str | None:
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    return None
