"""Nodes that create and change masks, and convert between masks and images."""

from collections.abc import Callable
from itertools import product

import numpy as np

from comfyui_workflow.sandbox.node import Folders, InputTypes, NodeContext, NodeResult
from comfyui_workflow.sandbox.nodes.typed_node import (
    IMAGE,
    LARGEST_SIDE,
    MASK,
    Mask,
    Pixels,
    V3Node,
    choice_new,
    integer,
    number,
    offset,
    outputs,
    required,
    side,
    switch,
)

CHANNELS = ("red", "green", "blue", "alpha")


class SolidMask(V3Node):
    CATEGORY = "image/mask"
    DISPLAY_NAME = "Create Solid Mask"
    DESCRIPTION = "A mask of one value."
    RETURN_TYPES = ("MASK",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(value=number(1.0, 0.0, 1.0, step=0.01), width=side(), height=side())

    def run(self, context: NodeContext, *, value: float, width: int, height: int) -> NodeResult:
        return outputs(np.full((1, height, width), value, np.float32))


class InvertMask(V3Node):
    CATEGORY = "image/mask"
    DISPLAY_NAME = "Invert Mask"
    DESCRIPTION = "White becomes black."
    RETURN_TYPES = ("MASK",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(mask=MASK)

    def run(self, context: NodeContext, *, mask: Mask) -> NodeResult:
        return outputs(1 - mask)


class CropMask(V3Node):
    CATEGORY = "image/mask"
    DISPLAY_NAME = "Crop Mask"
    DESCRIPTION = "Cuts a rectangle out of a mask."
    RETURN_TYPES = ("MASK",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(mask=MASK, x=offset(), y=offset(), width=side(), height=side())

    def run(self, context: NodeContext, *, mask: Mask, x: int, y: int, width: int, height: int) -> NodeResult:
        return outputs(mask[:, y : y + height, x : x + width])


class ThresholdMask(V3Node):
    CATEGORY = "image/mask"
    DISPLAY_NAME = "Threshold Mask"
    DESCRIPTION = "White where the mask is above a value, black elsewhere."
    RETURN_TYPES = ("MASK",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(mask=MASK, value=number(0.5, 0.0, 1.0, step=0.01))

    def run(self, context: NodeContext, *, mask: Mask, value: float) -> NodeResult:
        return outputs((mask > value).astype(np.float32))


class MaskComposite(V3Node):
    CATEGORY = "image/mask"
    DISPLAY_NAME = "Combine Masks"
    DESCRIPTION = "Combines a mask with another one laid over it."
    RETURN_TYPES = ("MASK",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            destination=MASK, source=MASK, x=offset(), y=offset(), operation=choice_new([*_OPERATIONS])
        )

    def run(
        self, context: NodeContext, *, destination: Mask, source: Mask, x: int, y: int, operation: str
    ) -> NodeResult:
        result = destination.copy()
        place = result[:, y : y + source.shape[1], x : x + source.shape[2]]
        visible = source[:, : place.shape[1], : place.shape[2]]
        place[...] = _OPERATIONS[operation](place, visible)
        return outputs(np.clip(result, 0, 1))


class FeatherMask(V3Node):
    CATEGORY = "image/mask"
    DISPLAY_NAME = "Feather Mask"
    DESCRIPTION = "Fades a mask out towards its borders."
    RETURN_TYPES = ("MASK",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(mask=MASK, left=offset(), top=offset(), right=offset(), bottom=offset())

    def run(
        self, context: NodeContext, *, mask: Mask, left: int, top: int, right: int, bottom: int
    ) -> NodeResult:
        result = mask.copy()
        columns, rows = np.moveaxis(result, 2, 0), np.moveaxis(result, 1, 0)
        _fade(columns, left, from_end=False)
        _fade(columns, right, from_end=True)
        _fade(rows, top, from_end=False)
        _fade(rows, bottom, from_end=True)
        return outputs(result)


class GrowMask(V3Node):
    CATEGORY = "image/mask"
    DISPLAY_NAME = "Grow Mask"
    DESCRIPTION = "Makes the white of a mask larger, or smaller with a negative number of pixels."
    RETURN_TYPES = ("MASK",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            mask=MASK,
            expand=integer(0, -LARGEST_SIDE, LARGEST_SIDE, step=1),
            tapered_corners=switch(True, advanced=True),
        )

    def run(self, context: NodeContext, *, mask: Mask, expand: int, tapered_corners: bool) -> NodeResult:
        return outputs(grow(mask, expand, tapered_corners=tapered_corners))


class MaskToImage(V3Node):
    CATEGORY = "image/mask"
    DISPLAY_NAME = "Convert Mask to Image"
    DESCRIPTION = "A mask as a grey image."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(mask=MASK)

    def run(self, context: NodeContext, *, mask: Mask) -> NodeResult:
        return outputs(as_image(mask))


class ImageToMask(V3Node):
    CATEGORY = "image/mask"
    DISPLAY_NAME = "Convert Image to Mask"
    DESCRIPTION = "One channel of an image as a mask."
    RETURN_TYPES = ("MASK",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(image=IMAGE, channel=choice_new(CHANNELS))

    def run(self, context: NodeContext, *, image: Pixels, channel: str) -> NodeResult:
        return outputs(image[..., CHANNELS.index(channel)])


class ImageColorToMask(V3Node):
    CATEGORY = "image/mask"
    DISPLAY_NAME = "Convert Image Color to Mask"
    DESCRIPTION = "White where an image has exactly one colour."
    RETURN_TYPES = ("MASK",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(image=IMAGE, color=integer(0, 0, 0xFFFFFF, step=1, display="number"))

    def run(self, context: NodeContext, *, image: Pixels, color: int) -> NodeResult:
        levels = np.rint(np.clip(image[..., :3], 0, 1) * 255).astype(np.int32)
        return outputs((levels @ [1 << 16, 1 << 8, 1] == color).astype(np.float32))


def as_image(mask: Mask) -> Pixels:
    return np.repeat(mask[..., np.newaxis], 3, axis=-1)


def grow(mask: Mask, pixels: int, *, tapered_corners: bool) -> Mask:
    """Grows (or shrinks) the mask by one pixel at a time, and stops early if nothing changes."""
    extreme = np.minimum if pixels < 0 else np.maximum
    for _ in range(abs(pixels)):
        grown: Mask = extreme.reduce(_with_neighbours(mask, tapered_corners=tapered_corners))
        if np.array_equal(grown, mask):
            break
        mask = grown
    return mask


def _with_neighbours(mask: Mask, *, tapered_corners: bool) -> list[Mask]:
    height, width = mask.shape[1:]
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)), mode="edge")
    return [
        padded[:, y : y + height, x : x + width]
        for y, x in product(range(3), repeat=2)
        if not tapered_corners or 1 in (x, y)
    ]


def _fade(lines: Mask, count: int, *, from_end: bool) -> None:
    count = min(count, len(lines))
    for number_of_line in range(count):
        # From the end, ComfyUI counts -0, -1, -2, ...: its first step changes line 0, on the opposite side.
        lines[-number_of_line if from_end else number_of_line] *= np.float32((number_of_line + 1) / count)


def _on_whole_values(operation: Callable[[Mask, Mask], Mask]) -> Callable[[Mask, Mask], Mask]:
    return lambda below, above: operation(np.rint(below) != 0, np.rint(above) != 0)


_OPERATIONS: dict[str, Callable[[Mask, Mask], Mask]] = {
    "multiply": np.multiply,
    "add": np.add,
    "subtract": np.subtract,
    "and": _on_whole_values(np.logical_and),
    "or": _on_whole_values(np.logical_or),
    "xor": _on_whole_values(np.logical_xor),
}
