"""HTTP responses with an output file (whole, a range, or a small preview) and with a live preview."""

import mimetypes
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from flask import Response, request, send_file
from werkzeug.exceptions import PreconditionFailed

from comfyui_workflow.errors import InvalidRequest

MAX_CACHED_PREVIEWS = 300
"""Previews that are cached in memory: about 10 kB each at the usual size, 100 kB at a large one."""
_INLINE_TYPES = ("image/", "video/", "audio/", "text/plain", "application/json")
_ACTIVE_TYPES = ("image/svg+xml",)
for _extension, _type in (
    (".glb", "model/gltf-binary"),
    (".gltf", "model/gltf+json"),
    (".webp", "image/webp"),
):
    mimetypes.add_type(_type, _extension)


def send_output(path: Path) -> Response:
    """Sends the file with its media type, an ETag and support for ranges. A type that a browser could run as
    code is sent as a download."""
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    is_inline = media_type.startswith(_INLINE_TYPES) and media_type not in _ACTIVE_TYPES
    response = send_file(
        path, mimetype=media_type, conditional=True, as_attachment=not is_inline, download_name=path.name
    )
    return _with_safe_headers(response)


def send_preview(path: Path, longest_side: int) -> Response:
    """Sends a WEBP whose longest side has at most that many pixels. Raises: InvalidRequest if the file is no
    picture."""
    from PIL import Image  # noqa: PLC0415 - slow to import, and not needed to start

    try:
        written_at_ns = path.stat().st_mtime_ns
        content = _make_preview(path, written_at_ns, longest_side)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidRequest(f"There is no preview of {path.name}: it is not a picture") from error
    response = Response(content, mimetype="image/webp")
    response.set_etag(f"{written_at_ns:x}-{longest_side}")
    response.make_conditional(request)
    return _with_safe_headers(response)


@lru_cache(maxsize=MAX_CACHED_PREVIEWS)
def _make_preview(path: Path, written_at_ns: int, longest_side: int) -> bytes:
    """Cached because a large picture takes 0.1 s and the page requests thirty at once. `written_at_ns` is
    part of the key: an overwritten file is another one."""
    from PIL import Image, ImageOps  # noqa: PLC0415 - as above

    with Image.open(path) as image:
        small = ImageOps.exif_transpose(image).convert("RGBA")
        small.thumbnail((longest_side, longest_side))
    content = BytesIO()
    small.save(content, "WEBP", quality=80)
    return content.getvalue()


def send_live_preview(picture: bytes, content_type: str) -> Response:
    response = Response(picture, mimetype=content_type)
    response.add_etag()
    response.make_conditional(request)
    _with_safe_headers(response).headers["Cache-Control"] = "private, no-cache"
    return response


def _with_safe_headers(response: Response) -> Response:
    """Adds headers that prevent a file of an instance from running as a page of this server. Raises:
    PreconditionFailed."""
    if response.status_code == 412:  # If-Match failed: without this, the file would be sent with status 412
        raise PreconditionFailed
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.headers["Cache-Control"] = "private, max-age=0, must-revalidate"
    return response
