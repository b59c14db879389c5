"""Nodes that change the size of an image."""

import math

import numpy as np

from comfyui_workflow.sandbox.node import Folders, InputTypes, NodeContext, NodeResult
from comfyui_workflow.sandbox.nodes.resampling import METHODS, resize
from comfyui_workflow.sandbox.nodes.typed_node import (
    IMAGE,
    IMAGE_NEW,
    Pixels,
    TypedNode,
    V3Node,
    choice,
    choice_new,
    integer,
    number,
    outputs,
    required,
    side,
)


class ImageScale(TypedNode):
    CATEGORY = "image/upscaling"
    DISPLAY_NAME = "Upscale Image"
    DESCRIPTION = "Resizes to a width and a height; a 0 for one of them keeps the proportions."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            image=IMAGE,
            upscale_method=choice(METHODS),
            width=side(least=0),
            height=side(least=0),
            crop=choice(["disabled", "center"]),
        )

    def run(
        self, context: NodeContext, *, image: Pixels, upscale_method: str, width: int, height: int, crop: str
    ) -> NodeResult:
        if width == 0 and height == 0:
            return outputs(image)
        old_height, old_width = image.shape[1:3]
        width = width or max(1, round(old_width * height / old_height))
        height = height or max(1, round(old_height * width / old_width))
        return outputs(resize(image, width, height, upscale_method, crop))


class ImageScaleBy(TypedNode):
    CATEGORY = "image/upscaling"
    DISPLAY_NAME = "Upscale Image By"
    DESCRIPTION = "Resizes by a factor."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            image=IMAGE, upscale_method=choice(METHODS), scale_by=number(1.0, 0.01, 8.0, step=0.01)
        )

    def run(self, context: NodeContext, *, image: Pixels, upscale_method: str, scale_by: float) -> NodeResult:
        return outputs(_scale(image, scale_by, upscale_method))


class ImageScaleToTotalPixels(V3Node):
    CATEGORY = "image/upscaling"
    DISPLAY_NAME = "Scale Image to Total Pixels"
    DESCRIPTION = "Resizes to a number of megapixels, proportions kept."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            image=IMAGE_NEW,
            upscale_method=choice_new(METHODS),
            megapixels=number(1.0, 0.01, 16.0, step=0.01),
            resolution_steps=integer(1, 1, 256, advanced=True),
        )

    def run(
        self,
        context: NodeContext,
        *,
        image: Pixels,
        upscale_method: str,
        megapixels: float,
        resolution_steps: int = 1,
    ) -> NodeResult:
        height, width = image.shape[1:3]
        factor = math.sqrt(megapixels * 1024 * 1024 / (width * height))
        new_width = round(width * factor / resolution_steps) * resolution_steps
        new_height = round(height * factor / resolution_steps) * resolution_steps
        return outputs(resize(image, new_width, new_height, upscale_method))


class ImageScaleToMaxDimension(V3Node):
    CATEGORY = "image/upscaling"
    DISPLAY_NAME = "Scale Image to Max Dimension"
    DESCRIPTION = "Resizes so that the longer side has a given length, proportions kept."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        methods = ["area", "lanczos", "bilinear", "nearest-exact", "bilinear", "bicubic"]
        return required(image=IMAGE, upscale_method=choice_new(methods), largest_size=side(least=0))

    def run(
        self, context: NodeContext, *, image: Pixels, upscale_method: str, largest_size: int
    ) -> NodeResult:
        height, width = image.shape[1:3]
        new_width = largest_size if width >= height else round((width / height) * largest_size)
        new_height = largest_size if height >= width else round((height / width) * largest_size)
        return outputs(resize(image, new_width, new_height, upscale_method))


class ResizeAndPadImage(V3Node):
    CATEGORY = "image/transform"
    DISPLAY_NAME = "Resize And Pad Image"
    DESCRIPTION = "Resizes to fit into a frame, proportions kept, and fills the rest with black or white."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            image=IMAGE,
            target_width=side(),
            target_height=side(),
            padding_color=choice_new(["white", "black"], advanced=True),
            interpolation=choice_new(
                ["area", "bicubic", "nearest-exact", "bilinear", "lanczos"], advanced=True
            ),
        )

    def run(
        self,
        context: NodeContext,
        *,
        image: Pixels,
        target_width: int,
        target_height: int,
        padding_color: str,
        interpolation: str,
    ) -> NodeResult:
        batch, height, width, channels = image.shape
        factor = min(target_width / width, target_height / height)
        inner = resize(image, int(width * factor), int(height * factor), interpolation)
        top = (target_height - inner.shape[1]) // 2
        left = (target_width - inner.shape[2]) // 2
        paint = 0.0 if padding_color == "black" else 1.0
        frame = np.full((batch, target_height, target_width, channels), paint, np.float32)
        frame[:, top : top + inner.shape[1], left : left + inner.shape[2]] = inner
        return outputs(frame)


def _scale(image: Pixels, factor: float, method: str) -> Pixels:
    height, width = image.shape[1:3]
    return resize(image, round(width * factor), round(height * factor), method)
