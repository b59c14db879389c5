"""Reader of the workflow inside a picture of ComfyUI: PNG text chunks, or EXIF fields in WEBP and JPEG."""

import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from PIL import Image, UnidentifiedImageError

from comfyui_workflow.errors import InvalidGraph

_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"RIFF", b"\xff\xd8\xff")
_EXIF_TEXTS = (0x010E, 0x010F, 0x0110)
"""EXIF fields (ImageDescription, Make, Model) in which ComfyUI stores `prompt:{…}` and `workflow:{…}`. It
does not use their real meaning."""


def is_picture(content: bytes) -> bool:
    return content.startswith(_SIGNATURES)


def embedded_workflow(content: bytes) -> tuple[Any, Any]:
    """Returns (the graph that made the picture, the editor file of that graph); None for a missing one.
    Raises: InvalidGraph if the picture has neither, or cannot be read."""
    try:
        with Image.open(BytesIO(content)) as picture:
            texts = {name: text for name, text in _texts(picture) if name in ("prompt", "workflow")}
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


def _texts(picture: Image.Image) -> Iterator[tuple[str, str]]:
    for name, text in picture.info.items():
        if isinstance(name, str) and isinstance(text, str):
            yield name, text
    exif = picture.getexif()
    for field in _EXIF_TEXTS:
        name, colon, text = str(exif.get(field, "")).partition(":")
        if colon:
            yield name.lower(), text


def _json(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidGraph("The workflow inside the picture is not JSON") from error
