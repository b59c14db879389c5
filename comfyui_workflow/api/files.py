"""One output file over HTTP: whole or in ranges, or as a small picture; and the picture of a live preview."""

import mimetypes
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from flask import Response, request, send_file
from PIL import Image, ImageOps
from werkzeug.exceptions import PreconditionFailed

from comfyui_workflow.errors import InvalidRequest

MOST_PREVIEWS = 300
"""That are kept in memory: ten kilobytes each of the usual size, a hundred of a large one."""
_SHOWN = ("image/", "video/", "audio/", "text/plain", "application/json")
_ACTIVE = ("image/svg+xml",)
for _ending, _type in ((".glb", "model/gltf-binary"), (".gltf", "model/gltf+json"), (".webp", "image/webp")):
    mimetypes.add_type(_type, _ending)


def send_output(path: Path) -> Response:
    """With its media type, ranges and an ETag. What a browser could run as code is a download."""
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    is_shown = media_type.startswith(_SHOWN) and media_type not in _ACTIVE
    response = send_file(
        path, mimetype=media_type, conditional=True, as_attachment=not is_shown, download_name=path.name
    )
    return _guarded(response)


def send_preview(path: Path, longest_side: int) -> Response:
    """A WEBP of at most that many pixels on its longest side. Raises: InvalidRequest for no picture."""
    try:
        written_at_ns = path.stat().st_mtime_ns
        content = _small_picture(path, written_at_ns, longest_side)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidRequest(f"There is no preview of {path.name}: it is not a picture") from error
    response = Response(content, mimetype="image/webp")
    response.set_etag(f"{written_at_ns:x}-{longest_side}")
    response.make_conditional(request)
    return _guarded(response)


@lru_cache(maxsize=MOST_PREVIEWS)
def _small_picture(path: Path, written_at_ns: int, longest_side: int) -> bytes:
    """A large picture takes a tenth of a second, and a page asks for thirty. `written_at_ns` tells a file
    from what was there before it."""
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
    _guarded(response).headers["Cache-Control"] = "private, no-cache"
    return response


def _guarded(response: Response) -> Response:
    """Nothing that an instance sent runs as a page of this server."""
    if response.status_code == 412:  # If-Match: the file would go out under that status all the same
        raise PreconditionFailed
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.headers["Cache-Control"] = "private, max-age=0, must-revalidate"
    return response
