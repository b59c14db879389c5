"""Nodes whose inputs depend on a choice, or grow with their number."""

import math
import string
from typing import Any

import numpy as np

from comfyui_workflow.sandbox.node import Folders, InputTypes, NodeContext, NodeResult
from comfyui_workflow.sandbox.nodes.resampling import resize
from comfyui_workflow.sandbox.nodes.typed_node import (
    IMAGE_NEW,
    Declared,
    Pixels,
    V3Node,
    choice_new,
    dynamic_choice,
    growing,
    matching,
    number,
    outputs,
    required,
    side,
    text,
)

_METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")


class ResizeImageMaskNode(V3Node):
    CATEGORY = "image/transform"
    DISPLAY_NAME = "Resize Image/Mask"
    DESCRIPTION = "Resizes an image or a mask; the first choice says by what."
    RETURN_TYPES = ("COMFY_MATCHTYPE_V3",)
    RETURN_NAMES = ("resized",)
    OUTPUT_TEMPLATES = ("input_type",)
    SINCE = "0.8.0"

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        crop = choice_new(["disabled", "center"], default="center")
        options: dict[str, dict[str, Declared]] = {
            "scale dimensions": {"width": side(least=0), "height": side(least=0), "crop": crop},
            "scale by multiplier": {"multiplier": number(1.0, 0.01, 8.0, step=0.01)},
            "scale longer dimension": {"longer_size": side(least=0)},
            "scale shorter dimension": {"shorter_size": side(least=0)},
            "scale width": {"width": side(least=0)},
            "scale height": {"height": side(least=0)},
            "scale total pixels": {"megapixels": number(1.0, 0.01, 16.0, step=0.01)},
            "match size": {"match": ("IMAGE,MASK", {}), "crop": crop},
            "scale to multiple": {"multiple": side(8)},
        }
        return required(
            input=matching("input_type", "IMAGE,MASK"),
            resize_type=dynamic_choice(options),
            scale_method=choice_new(_METHODS, default="area"),
        )

    def run(
        self,
        context: NodeContext,
        *,
        input: Pixels,
        resize_type: dict[str, Any],
        scale_method: str,
    ) -> NodeResult:
        pixels = input if input.ndim == 4 else input[..., np.newaxis]
        height, width = pixels.shape[1:3]
        new_width, new_height = _new_size(resize_type, width, height)
        crop = resize_type.get("crop", "disabled")
        if resize_type["resize_type"] == "scale to multiple":
            crop = "center"
        resized = resize(pixels, new_width, new_height, scale_method, crop)
        return outputs(resized if input.ndim == 4 else resized[..., 0])


class BatchImagesNode(V3Node):
    CATEGORY = "image/batch"
    DISPLAY_NAME = "Batch Images"
    DESCRIPTION = "Puts any number of batches one after the other; all take the size of the first."
    RETURN_TYPES = ("IMAGE",)
    SINCE = "0.8.0"

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(images=growing({"image": IMAGE_NEW}, prefix="image", min=1, max=50))

    def run(self, context: NodeContext, *, images: dict[str, Pixels]) -> NodeResult:
        pictures = list(images.values())
        channels = max(picture.shape[-1] for picture in pictures)
        opaque = [_with_channels(picture, channels) for picture in pictures]
        height, width = opaque[0].shape[1:3]
        same_size = [
            one if one.shape[1:3] == (height, width) else resize(one, width, height, "bilinear", "center")
            for one in opaque
        ]
        return outputs(np.concatenate(same_size))


class StringFormat(V3Node):
    CATEGORY = "text"
    DISPLAY_NAME = "Format Text"
    DESCRIPTION = "Python's format method: {a} stands for the value a."
    RETURN_TYPES = ("STRING",)
    SINCE = "0.33.0"

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            values=growing({"value": ("*", {})}, names=[*string.ascii_lowercase], min=0),
            f_string=text(default="{a}", multiline=True),
        )

    def run(self, context: NodeContext, *, values: dict[str, object], f_string: str) -> NodeResult:
        return outputs(f_string.format(**values))


def _new_size(choice: dict[str, Any], width: int, height: int) -> tuple[int, int]:
    """Returns width and height. A side of 0 follows from the other one."""
    match choice["resize_type"]:
        case "scale by multiplier":
            return _scaled(width, height, choice["multiplier"])
        case "scale longer dimension":
            return _by_one_side(width, height, choice["longer_size"], is_width=width >= height)
        case "scale shorter dimension":
            return _by_one_side(width, height, choice["shorter_size"], is_width=width <= height)
        case "scale total pixels":
            pixels = int(choice["megapixels"] * 1024 * 1024)
            return _scaled(width, height, math.sqrt(pixels / (width * height)))
        case "scale to multiple":
            multiple = choice["multiple"]
            return _by_sides(width, height, width // multiple * multiple, height // multiple * multiple)
        case _:
            wanted = choice["match"].shape[1:3] if "match" in choice else ()
            new_height, new_width = wanted or (choice.get("height", 0), choice.get("width", 0))
            return _by_sides(width, height, new_width, new_height)


def _scaled(width: int, height: int, factor: float) -> tuple[int, int]:
    return round(width * factor), round(height * factor)


def _by_one_side(width: int, height: int, wanted: int, *, is_width: bool) -> tuple[int, int]:
    if is_width:
        return wanted, wanted if width == height else round(height / width * wanted)
    return round(width / height * wanted), wanted


def _by_sides(width: int, height: int, new_width: int, new_height: int) -> tuple[int, int]:
    if not new_width and not new_height:
        return width, height
    return (
        new_width or max(1, round(width * new_height / height)),
        new_height or max(1, round(height * new_width / width)),
    )


def _with_channels(picture: Pixels, channels: int) -> Pixels:
    missing = channels - picture.shape[-1]
    return np.pad(picture, [(0, 0)] * 3 + [(0, missing)], constant_values=1.0) if missing else picture
