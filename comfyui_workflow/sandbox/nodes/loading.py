"""Nodes that load image files."""

import hashlib
import mimetypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from comfyui_workflow.sandbox.node import Folders, InputTypes, NodeContext, NodeResult
from comfyui_workflow.sandbox.nodes.file_names import file_to_load
from comfyui_workflow.sandbox.nodes.resampling import from_eight_bits
from comfyui_workflow.sandbox.nodes.typed_node import Mask, TypedNode, choice, outputs, required

_NO_ALPHA = np.zeros((64, 64), np.float32)  # 64 x 64 for every image size, as in ComfyUI


class ImageFileNode(TypedNode):
    """Base of the three classes below: their input `image` is the name of a file."""

    @classmethod
    def is_changed(cls, folders: Folders, **widgets: Any) -> object:
        path = file_to_load(folders, str(widgets.get("image")))
        return hashlib.sha256(path.read_bytes()).hexdigest() if path else float("nan")

    @classmethod
    def validate_inputs(cls, folders: Folders, image: str) -> bool | str:  # type: ignore[override]
        # `image` must be the only parameter: this method replaces the other checks of every named input.
        return file_to_load(folders, image) is not None or f"Invalid image file: {image}"


class LoadImage(ImageFileNode):
    CATEGORY = "image"
    DISPLAY_NAME = "Load Image"
    DESCRIPTION = (
        "Loads an image, or all frames of an animation, and a mask that is white where it is transparent."
    )
    RETURN_TYPES = ("IMAGE", "MASK")

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        names = [name for name in _names_in(folders.input_dir) if _is_named_as_image(name)]
        return required(image=choice(names, image_upload=True))

    def run(self, context: NodeContext, *, image: str) -> NodeResult:
        with Image.open(_path_of(context, image)) as file:
            frames = list(_upright_frames(file))
        pixels = [from_eight_bits(frame.convert("RGB")) for frame in frames]
        masks = [_transparency(frame) for frame in frames]
        return outputs(np.stack(pixels), np.stack(masks))


class LoadImageOutput(LoadImage):
    CATEGORY = "image"
    DISPLAY_NAME = "Load Image (from Outputs)"
    DESCRIPTION = "Loads an image that was saved earlier."
    EXPERIMENTAL = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        remote = {"route": "/internal/files/output", "refresh_button": True, "control_after_refresh": "first"}
        return required(image=("COMBO", {"image_upload": True, "image_folder": "output", "remote": remote}))


class LoadImageMask(ImageFileNode):
    CATEGORY = "image"
    DISPLAY_NAME = "Load Image (as Mask)"
    DESCRIPTION = "Loads one channel of an image as a mask."
    RETURN_TYPES = ("MASK",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            image=choice(_names_in(folders.input_dir), image_upload=True),
            channel=choice(["alpha", "red", "green", "blue"]),
        )

    def run(self, context: NodeContext, *, image: str, channel: str) -> NodeResult:
        with Image.open(_path_of(context, image)) as file:
            picture = _in_eight_bits(ImageOps.exif_transpose(file)).convert("RGBA")
        mask = from_eight_bits(picture.getchannel(channel[0].upper()))
        return outputs((1 - mask if channel == "alpha" else mask)[np.newaxis])


def _names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.is_file())


def _is_named_as_image(name: str) -> bool:
    return (mimetypes.guess_type(name)[0] or "").startswith("image/")


def _path_of(context: NodeContext, name: str) -> Path:
    folders = Folders(input_dir=context.input_dir, output_dir=context.output_dir, temp_dir=context.temp_dir)
    path = file_to_load(folders, name)
    if path is None:
        raise FileNotFoundError(f"There is no image {name!r} in the input folder.")
    return path


def _upright_frames(file: Image.Image) -> Iterator[Image.Image]:
    """Yields the frames that have the size of the first one. Of an MPO (its pictures are views, not frames),
    yields only the first."""
    size: tuple[int, int] | None = None
    for raw in ImageSequence.Iterator(file):
        frame = _in_eight_bits(ImageOps.exif_transpose(raw))
        size = size or frame.size
        if frame.size == size:
            yield frame.copy()
        if file.format == "MPO":
            return


def _in_eight_bits(picture: Image.Image) -> Image.Image:
    return picture.point(lambda value: value * (1 / 255)) if picture.mode == "I" else picture


def _transparency(frame: Image.Image) -> Mask:
    if frame.mode == "P" and "transparency" in frame.info:
        frame = frame.convert("RGBA")
    if "A" not in frame.getbands():
        return _NO_ALPHA
    return 1 - from_eight_bits(frame.getchannel("A"))
