"""Nodes that crop, flip, rotate, pad or invert an image, pixel by pixel."""

import numpy as np

from comfyui_workflow.sandbox.node import Folders, InputTypes, NodeContext, NodeResult
from comfyui_workflow.sandbox.nodes.typed_node import (
    IMAGE,
    LARGEST_SIDE,
    Declared,
    Mask,
    Pixels,
    TypedNode,
    V3Node,
    choice_new,
    integer,
    offset,
    outputs,
    required,
    side,
)


class ImageInvert(TypedNode):
    CATEGORY = "image/color"
    DISPLAY_NAME = "Invert Image Colors"
    DESCRIPTION = "Makes a negative."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(image=IMAGE)

    def run(self, context: NodeContext, *, image: Pixels) -> NodeResult:
        return outputs(1 - image)


class ImageCrop(V3Node):
    CATEGORY = "image/transform"
    DISPLAY_NAME = "Crop Image (DEPRECATED)"
    DESCRIPTION = "Cuts out a rectangle; what reaches beyond the image is left away."
    RETURN_TYPES = ("IMAGE",)
    DEPRECATED = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(image=IMAGE, width=side(), height=side(), x=offset(), y=offset())

    def run(
        self, context: NodeContext, *, image: Pixels, width: int, height: int, x: int, y: int
    ) -> NodeResult:
        left = min(x, image.shape[2] - 1)
        top = min(y, image.shape[1] - 1)
        return outputs(image[:, top : top + height, left : left + width])


class ImageFlip(V3Node):
    CATEGORY = "image/transform"
    DISPLAY_NAME = "Flip Image"
    DESCRIPTION = "Mirrors an image, upside down or left to right."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(image=IMAGE, flip_method=choice_new(["x-axis: vertically", "y-axis: horizontally"]))

    def run(self, context: NodeContext, *, image: Pixels, flip_method: str) -> NodeResult:
        return outputs(np.flip(image, axis=1 if flip_method.startswith("x") else 2))


class ImageRotate(V3Node):
    CATEGORY = "image/transform"
    DISPLAY_NAME = "Rotate Image"
    DESCRIPTION = "Turns an image clockwise."
    RETURN_TYPES = ("IMAGE",)
    TURNS = ("none", "90 degrees", "180 degrees", "270 degrees")

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(image=IMAGE, rotation=choice_new(cls.TURNS))

    def run(self, context: NodeContext, *, image: Pixels, rotation: str) -> NodeResult:
        return outputs(np.rot90(image, k=self.TURNS.index(rotation), axes=(2, 1)))


class ImagePadForOutpaint(TypedNode):
    CATEGORY = "image/transform"
    DISPLAY_NAME = "Pad Image for Outpainting"
    DESCRIPTION = "Puts a grey border around an image, and gives the mask of what is to be painted."
    RETURN_TYPES = ("IMAGE", "MASK")

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            image=IMAGE,
            left=_border(),
            top=_border(),
            right=_border(),
            bottom=_border(),
            feathering=integer(40, 0, LARGEST_SIDE, step=1, advanced=True),
        )

    def run(
        self,
        context: NodeContext,
        *,
        image: Pixels,
        left: int,
        top: int,
        right: int,
        bottom: int,
        feathering: int,
    ) -> NodeResult:
        height, width = image.shape[1:3]
        padded = np.pad(image, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=0.5)
        mask = np.ones(padded.shape[1:3], np.float32)
        mask[top : top + height, left : left + width] = _feathered_edges(
            height, width, feathering, left=left > 0, top=top > 0, right=right > 0, bottom=bottom > 0
        )
        return outputs(padded, mask[np.newaxis])


def _border() -> Declared:
    return integer(0, 0, LARGEST_SIDE, step=8)


def _feathered_edges(
    height: int, width: int, feathering: int, *, left: bool, top: bool, right: bool, bottom: bool
) -> Mask:
    """Returns a mask that is 0 inside and rises quadratically towards the padded sides."""
    if not 0 < feathering * 2 < min(height, width):
        return np.zeros((height, width), np.float32)
    rows = np.arange(height)
    columns = np.arange(width)
    from_top = np.minimum(rows if top else height, height - rows if bottom else height)
    from_left = np.minimum(columns if left else width, width - columns if right else width)
    distance = np.minimum.outer(np.broadcast_to(from_top, height), np.broadcast_to(from_left, width))
    rate: Mask = np.maximum(feathering - distance, 0).astype(np.float32) / np.float32(feathering)
    return rate * rate
