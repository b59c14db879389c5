"""Nodes that write image files with the graph inside, and report them to the client."""

import json
import secrets
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from comfyui_workflow.sandbox.node import Folders, InputTypes, NodeContext, NodeResult
from comfyui_workflow.sandbox.nodes.file_names import SaveTarget, find_save_target
from comfyui_workflow.sandbox.nodes.masks import as_image
from comfyui_workflow.sandbox.nodes.resampling import to_eight_bits
from comfyui_workflow.sandbox.nodes.typed_node import (
    IMAGE,
    MASK,
    Mask,
    Pixels,
    TypedNode,
    V3Node,
    choice_new,
    hidden_png_texts,
    integer,
    number,
    required,
    switch,
    text,
)

_EXIF_MODEL, _EXIF_MAKE = 0x0110, 0x010F
_WEBP_METHODS = {"default": 4, "fastest": 0, "slowest": 6}


class SaveImage(TypedNode):
    CATEGORY = "image"
    DISPLAY_NAME = "Save Image"
    DESCRIPTION = "Saves images as PNG files in the output folder."
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    OUTPUT_NODE = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(images=IMAGE, filename_prefix=text(default="ComfyUI")) | hidden_png_texts()

    def run(self, context: NodeContext, *, images: Pixels, filename_prefix: str = "ComfyUI") -> NodeResult:
        target = _save_target(context.output_dir, filename_prefix, images)
        shown = _write_png_files(context, target, images, kind="output")
        return NodeResult(result=(images,), ui={"images": shown})


class PreviewImage(TypedNode):
    CATEGORY = "image"
    DISPLAY_NAME = "Preview Image"
    DESCRIPTION = "Shows images; their files live until the next start."
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    OUTPUT_NODE = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(images=IMAGE) | hidden_png_texts()

    def run(self, context: NodeContext, *, images: Pixels) -> NodeResult:
        return NodeResult(result=(images,), ui=_show(context, images))


class MaskPreview(V3Node):
    CATEGORY = "image/mask"
    DISPLAY_NAME = "Preview Mask"
    DESCRIPTION = "Shows a mask; its file lives until the next start."
    RETURN_TYPES = ("MASK",)
    RETURN_NAMES = ("mask",)
    OUTPUT_NODE = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(mask=MASK) | hidden_png_texts()

    def run(self, context: NodeContext, *, mask: Mask) -> NodeResult:
        shown = _show(context, as_image(mask))
        return NodeResult(result=(mask,), ui={**shown, "animated": [False]})


class SaveAnimatedWEBP(V3Node):
    CATEGORY = "image"
    DISPLAY_NAME = "Save Animated WEBP"
    DESCRIPTION = "Saves a batch as one animation."
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    OUTPUT_NODE = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return (
            required(
                images=IMAGE,
                filename_prefix=text(default="ComfyUI", multiline=False),
                fps=number(6.0, 0.01, 1000.0, step=0.01),
                lossless=switch(True),
                quality=integer(80, 0, 100),
                method=choice_new([*_WEBP_METHODS]),
            )
            | hidden_png_texts()
        )

    def run(
        self,
        context: NodeContext,
        *,
        images: Pixels,
        filename_prefix: str,
        fps: float,
        lossless: bool,
        quality: int,
        method: str,
    ) -> NodeResult:
        target = _save_target(context.output_dir, filename_prefix, images)
        first, *others = _pictures(images)
        first.save(
            target.directory / target.file_name("webp"),
            save_all=True,
            append_images=others,
            duration=int(1000 / fps),
            exif=_exif_with_texts(first, context),
            lossless=lossless,
            quality=quality,
            method=_WEBP_METHODS[method],
        )
        return _animation(images, target, "webp", is_animated=bool(others))


class SaveAnimatedPNG(V3Node):
    CATEGORY = "image"
    DISPLAY_NAME = "Save Animated PNG"
    DESCRIPTION = "Saves a batch as one animation."
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    OUTPUT_NODE = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return (
            required(
                images=IMAGE,
                filename_prefix=text(default="ComfyUI", multiline=False),
                fps=number(6.0, 0.01, 1000.0, step=0.01),
                compress_level=integer(4, 0, 9, advanced=True),
            )
            | hidden_png_texts()
        )

    def run(
        self, context: NodeContext, *, images: Pixels, filename_prefix: str, fps: float, compress_level: int
    ) -> NodeResult:
        target = _save_target(context.output_dir, filename_prefix, images)
        chunks = PngInfo()
        for key, value in _texts(context):
            chunks.add(b"comf", f"{key}\0{value}".encode("latin-1"), after_idat=True)
        first, *others = _pictures(images)
        first.save(
            target.directory / target.file_name("png"),
            save_all=True,
            append_images=others,
            duration=int(1000 / fps),
            pnginfo=chunks,
            compress_level=compress_level,
        )
        return _animation(images, target, "png", is_animated=True)


def ui_entry(target: SaveTarget, name: str, kind: str = "output") -> dict[str, str]:
    """Returns the entry of a saved file in the `ui` of an output node."""
    return {"filename": name, "subfolder": target.subfolder, "type": kind}


def _save_target(root: Path, prefix: str, images: Pixels) -> SaveTarget:
    return find_save_target(root, prefix, width=images.shape[2], height=images.shape[1])


def _show(context: NodeContext, images: Pixels) -> dict[str, list[object]]:
    letters = "".join(secrets.choice(string.ascii_lowercase) for _ in range(5))
    target = _save_target(context.temp_dir, f"ComfyUI_temp_{letters}", images)
    return {"images": _write_png_files(context, target, images, kind="temp", compress_level=1)}


def _write_png_files(
    context: NodeContext, target: SaveTarget, images: Pixels, *, kind: str, compress_level: int = 4
) -> list[object]:
    chunks = PngInfo()
    for key, value in _texts(context):
        chunks.add_text(key, value)
    shown: list[object] = []
    for index, picture in enumerate(_pictures(images)):
        name = target.file_name("png", index)
        picture.save(target.directory / name, pnginfo=chunks, compress_level=compress_level)
        shown.append(ui_entry(target, name, kind))
    return shown


def _pictures(images: Pixels) -> Iterator[Image.Image]:
    return (Image.fromarray(picture) for picture in to_eight_bits(images))


def _texts(context: NodeContext) -> Iterator[tuple[str, str]]:
    """Yields the texts for the file: the graph as "prompt", and the `extra_pnginfo` of the request."""
    for key, value in ({"prompt": context.prompt} | (context.extra_pnginfo or {})).items():
        yield key, json.dumps(value)


def _exif_with_texts(picture: Image.Image, context: NodeContext) -> Image.Exif:
    """Returns EXIF data: the graph in the tag Model, the other texts in the tags from Make downwards."""
    exif = picture.getexif()
    for tag, (key, value) in zip((_EXIF_MODEL, *range(_EXIF_MAKE, 0, -1)), _texts(context), strict=False):
        exif[tag] = f"{key}:{value}"
    return exif


def _animation(images: Pixels, target: SaveTarget, extension: str, *, is_animated: bool) -> NodeResult:
    ui: dict[str, list[Any]] = {
        "images": [ui_entry(target, target.file_name(extension))],
        "animated": [is_animated],
    }
    return NodeResult(result=(images,), ui=ui)
