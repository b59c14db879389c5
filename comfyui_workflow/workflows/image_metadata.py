"""Reader of the workflow inside a file that ComfyUI made: PNG chunks, EXIF fields in WEBP, JPEG and
AVIF, and the metadata of videos, sounds and 3D models."""

import json
import struct
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.parsing.untrusted import as_object
from comfyui_workflow.workflows.media_metadata import HEAD_BYTES, MetadataUnreadable, metadata_reader

if TYPE_CHECKING:
    from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_SIGNATURES = (_PNG, b"RIFF", b"\xff\xd8\xff")
_EXIF_TEXTS = (0x010E, 0x010F, 0x0110)
"""EXIF fields (ImageDescription, Make, Model) in which ComfyUI stores `prompt:{…}` and `workflow:{…}`. It
does not use their real meaning."""


_AVIF = (b"ftypavif", b"ftypavis")
_PARTS = ("prompt", "workflow")


def is_picture(content: bytes) -> bool:
    return content.startswith(_SIGNATURES) or content[4:12] in _AVIF


def is_other_media(head: bytes) -> bool:
    """True for videos, sounds and other files whose metadata can contain a workflow."""
    return metadata_reader(head) is not None


def embedded_workflow(content: bytes) -> tuple[Any, Any]:
    """Returns (the graph that made the picture, the editor file of that graph); None for a missing one.
    Raises: InvalidGraph if the picture has neither, or cannot be read."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - slow to import, and not needed to start

    try:
        with Image.open(BytesIO(content)) as picture:
            found = [*_texts(picture), *_comf_texts(content)]
            texts = {name: text for name, text in found if name in _PARTS}
    except Image.DecompressionBombError as error:
        raise InvalidGraph(
            "The picture is too large to be searched for a workflow: use a smaller one"
        ) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InvalidGraph("The picture cannot be read, so no workflow can be found in it") from error
    if not texts:
        raise InvalidGraph(
            "The picture has no workflow inside. ComfyUI writes one into the PNG and WEBP files that it "
            "saves; websites and messengers often remove it"
        )
    return _json(texts.get("prompt")), _json(texts.get("workflow"))


def embedded_workflow_of_media(file: BinaryIO) -> tuple[Any, Any]:
    """Returns the same as `embedded_workflow`, for a file of which `is_other_media` is true.
    Raises: InvalidGraph, OSError."""
    file.seek(0)
    reader = metadata_reader(file.read(HEAD_BYTES))
    if reader is None:
        raise InvalidGraph("The file is of no format that can contain a workflow")
    texts: dict[str, Any] = {}
    try:
        for name, value in reader(file):
            texts.update(_named(name, value))
    except MetadataUnreadable as error:
        raise InvalidGraph("The file cannot be read, so no workflow can be found in it") from error
    if not texts:
        raise InvalidGraph(
            "The file has no workflow inside. ComfyUI writes one into the videos, sounds and 3D models that "
            "it saves; websites and messengers often remove it"
        )
    return _json(texts.get("prompt")), _json(texts.get("workflow"))


def _named(name: str, value: Any) -> Mapping[str, Any]:
    """Returns the parts of the workflow in one text. Some nodes write both parts into the comment."""
    if name in _PARTS:
        return {name: value}
    if name != "comment" or not isinstance(value, str):
        return {}
    try:
        found = as_object(json.loads(value))
    except (ValueError, RecursionError):  # a comment of a person
        return {}
    return {part: found[part] for part in _PARTS if part in found}


def _texts(picture: "Image.Image") -> Iterator[tuple[str, str]]:
    for name, text in picture.info.items():
        if isinstance(name, str) and isinstance(text, str):
            yield name, text
    exif = picture.getexif()
    for field in _EXIF_TEXTS:
        name, colon, text = str(exif.get(field, "")).partition(":")
        if colon:
            yield name.lower(), text


def _comf_texts(content: bytes) -> Iterator[tuple[str, str]]:
    """Yields the texts of ComfyUI's own chunks, which it writes into an animated PNG, after the pixels."""
    if not content.startswith(_PNG):
        return
    position = len(_PNG)
    while position + 12 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, position)
        if kind == b"comf":
            name, _, text = content[position + 8 : position + 8 + size].partition(b"\0")
            yield name.decode("latin-1"), text.decode("utf-8", "replace")
        position += 12 + size


def _json(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidGraph("The workflow inside the file is not JSON") from error
