"""POST /upload/image and /upload/mask: uploads into the input, output or temp directory."""

import json
import os
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.web_request import FileField
from PIL import Image

from comfyui_workflow.sandbox.node import Folders

Form = Any
"""The multipart form as parsed by aiohttp."""


class UploadRefused(Exception):
    """The upload is refused. The response is 400 without a reason, as in ComfyUI."""


def store_image(form: Form, folders: Folders) -> dict[str, str]:
    """Stores the uploaded file under its name, or as "name (1).png" if another file has the name.

    Raises: UploadRefused. An unknown type, or a name in a missing folder, raises another exception, which
    becomes a 500.
    """
    _, content, target = _read_form(form, folders)
    name, is_there = _free_name(target.name, target.parent, content, form)
    if not is_there:
        (target.parent / name).write_bytes(content)
    return _answer(name, form)


def store_mask(form: Form, folders: Folders) -> dict[str, str]:
    """Stores the picture that `original_ref` names, with the alpha channel of the uploaded picture."""
    upload, content, target = _read_form(form, folders)
    reference = json.loads(form["original_ref"])
    directory = folders.of_type(reference.get("type", "output"))
    if directory is None:
        raise UploadRefused
    original = directory / reference.get("subfolder", "") / Path(reference["filename"]).name
    name, _ = _free_name(target.name, target.parent, content, form)
    if original.is_file():
        upload.file.seek(0)
        with Image.open(original) as picture, Image.open(upload.file) as mask:
            masked = picture.convert("RGBA")
            masked.putalpha(mask.convert("RGBA").getchannel("A"))
        masked.save(target.parent / name, compress_level=4)
    return _answer(name, form)


def _read_form(form: Form, folders: Folders) -> tuple[FileField, bytes, Path]:
    upload = form.get("image")
    if not isinstance(upload, FileField) or not upload.filename:
        raise UploadRefused
    directory = folders.of_type(form.get("type") or "input")
    if directory is None:
        raise web.HTTPInternalServerError(text="500 Internal Server Error\n\nServer got itself in trouble")
    root = os.path.abspath(directory)  # noqa: PTH100 - Path.resolve would follow links, and keeps no ".."
    target = os.path.abspath(os.path.join(root, form.get("subfolder", ""), upload.filename))  # noqa: PTH100, PTH118
    if os.path.commonpath((root, target)) != root:
        raise UploadRefused
    folder = Path(root, os.path.normpath(form.get("subfolder", "")))
    folder.mkdir(parents=True, exist_ok=True)
    return upload, upload.file.read(), folder / upload.filename


def _free_name(name: str, folder: Path, content: bytes, form: Form) -> tuple[str, bool]:
    """Returns (name to store under, True if an identical file with that name exists)."""
    if form.get("overwrite") in ("true", "1"):
        return name, False
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - ".name" has no suffix here, and no stem there
    count = 1
    while (folder / name).exists():
        if (folder / name).read_bytes() == content:
            return name, True
        name = f"{stem} ({count}){suffix}"
        count += 1
    return name, False


def _answer(name: str, form: Form) -> dict[str, str]:
    return {"name": name, "subfolder": form.get("subfolder", ""), "type": form.get("type") or "input"}
