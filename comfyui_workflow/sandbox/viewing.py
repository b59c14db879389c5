"""GET /view: a file of the input, output or temp directory, complete, in ranges, or as a preview picture."""

import io
import mimetypes
import os
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web
from PIL import Image

from comfyui_workflow.sandbox.node import Folders

_ACTIVE_CONTENT = {
    "text/html",
    "text/html-sandboxed",
    "application/xhtml+xml",
    "text/javascript",
    "text/css",
}


def view(query: Mapping[str, str], folders: Folders) -> web.StreamResponse:
    """Returns the response. A refused or missing file gives 400, 403 or 404 with an empty body."""
    if "filename" not in query:
        return web.Response(status=404)
    name, kind = _without_annotation(query["filename"])
    if not name or name.startswith("/") or ".." in name:
        return web.Response(status=400)
    directory = folders.of_type(kind or query.get("type", "output"))
    if directory is None:
        return web.Response(status=400)
    root = os.path.abspath(directory)  # noqa: PTH100 - Path.resolve would follow links
    folder = os.path.abspath(os.path.join(root, query.get("subfolder", "")))  # noqa: PTH100, PTH118
    if os.path.commonpath((root, folder)) != root:
        return web.Response(status=403)
    file = Path(folder, Path(name).name)
    return _answer(file, query) if file.is_file() else web.Response(status=404)


def _without_annotation(name: str) -> tuple[str, str | None]:
    """Splits "a.png [temp]" into ("a.png", "temp")."""
    for kind in ("output", "input", "temp"):
        if name.endswith(f"[{kind}]"):
            return name[: -len(kind) - 2].rstrip(), kind
    return name, None


def _answer(file: Path, query: Mapping[str, str]) -> web.StreamResponse:
    channel = query.get("channel", "rgba")
    if "preview" in query:
        return _preview(file, query["preview"], keeps_alpha="a" in query.get("channel", ""))
    if channel in ("rgb", "a"):
        return _channel(file, channel)
    content_type = mimetypes.guess_type(file)[0] or "application/octet-stream"
    if content_type in _ACTIVE_CONTENT:
        content_type = "application/octet-stream"
    return web.FileResponse(file, headers={**_disposition(file), "Content-Type": content_type})


def _preview(file: Path, wanted: str, *, keeps_alpha: bool) -> web.Response:
    """Returns the preview. `wanted` is "webp;60" or "jpeg;80"; any other value means webp with quality 90."""
    parts = wanted.split(";")
    image_format = parts[0] if parts[0] in ("webp", "jpeg") and not keeps_alpha else "webp"
    quality = int(parts[-1]) if parts[-1].isdigit() else 90
    with Image.open(file) as picture:
        shown = picture.convert("RGB") if image_format == "jpeg" else picture
        return _encoded(shown, file, image_format, quality=quality)


def _channel(file: Path, channel: str) -> web.Response:
    with Image.open(file) as picture:
        if channel == "rgb":
            return _encoded(picture.convert("RGB"), file, "png")
        alpha = Image.new("RGBA", picture.size)
        alpha.putalpha(picture.convert("RGBA").getchannel("A"))
        return _encoded(alpha, file, "png")


def _encoded(picture: Image.Image, file: Path, image_format: str, **options: int) -> web.Response:
    buffer = io.BytesIO()
    picture.save(buffer, format=image_format, **options)
    return web.Response(
        body=buffer.getvalue(), content_type=f"image/{image_format}", headers=_disposition(file)
    )


def _disposition(file: Path) -> dict[str, str]:
    return {"Content-Disposition": f'filename="{file.name}"'}
