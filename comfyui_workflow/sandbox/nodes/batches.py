"""Nodes that create, join, repeat, split and measure batches of images."""

import numpy as np

from comfyui_workflow.sandbox.node import Folders, InputTypes, NodeContext, NodeResult
from comfyui_workflow.sandbox.nodes.resampling import resize
from comfyui_workflow.sandbox.nodes.typed_node import (
    IMAGE,
    LARGEST_SIDE,
    Pixels,
    TypedNode,
    V3Node,
    hidden,
    integer,
    outputs,
    required,
    side,
)


class EmptyImage(TypedNode):
    CATEGORY = "image"
    DISPLAY_NAME = "Empty Image"
    DESCRIPTION = "A batch of images of one colour."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            width=side(),
            height=side(),
            batch_size=integer(1, 1, 4096),
            color=integer(0, 0, 0xFFFFFF, step=1, display="color"),
        )

    def run(
        self, context: NodeContext, *, width: int, height: int, batch_size: int, color: int
    ) -> NodeResult:
        channels = np.array([color >> 16 & 0xFF, color >> 8 & 0xFF, color & 0xFF]) / 255
        return outputs(np.tile(channels.astype(np.float32), (batch_size, height, width, 1)))


class ImageBatch(TypedNode):
    CATEGORY = "image/batch"
    DISPLAY_NAME = "Batch Images (DEPRECATED)"
    DESCRIPTION = "Puts two batches one after the other; the second takes the size of the first."
    RETURN_TYPES = ("IMAGE",)
    DEPRECATED = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(image1=IMAGE, image2=IMAGE)

    def run(self, context: NodeContext, *, image1: Pixels, image2: Pixels) -> NodeResult:
        if image1.shape[1:] != image2.shape[1:]:
            image2 = resize(image2, image1.shape[2], image1.shape[1], "bilinear", "center")
        return outputs(np.concatenate([image1, image2]))


class RepeatImageBatch(V3Node):
    CATEGORY = "image/batch"
    DISPLAY_NAME = "Repeat Image Batch"
    DESCRIPTION = "Repeats a batch as a whole."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(image=IMAGE, amount=integer(1, 1, 4096))

    def run(self, context: NodeContext, *, image: Pixels, amount: int) -> NodeResult:
        return outputs(np.tile(image, (amount, 1, 1, 1)))


class ImageFromBatch(V3Node):
    CATEGORY = "image/batch"
    DISPLAY_NAME = "Get Image from Batch"
    DESCRIPTION = "Takes some images out of a batch."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            image=IMAGE, batch_index=integer(0, -LARGEST_SIDE, LARGEST_SIDE), length=integer(1, 1, 4096)
        )

    def run(self, context: NodeContext, *, image: Pixels, batch_index: int, length: int) -> NodeResult:
        index = batch_index + len(image) if batch_index < 0 else batch_index
        first = max(0, min(len(image) - 1, index))
        return outputs(image[first : first + length])


class GetImageSize(V3Node):
    CATEGORY = "image"
    DISPLAY_NAME = "Get Image Size"
    DESCRIPTION = "Width, height and number of images."
    RETURN_TYPES = ("INT", "INT", "INT")
    RETURN_NAMES = ("width", "height", "batch_size")

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(image=IMAGE) | hidden(unique_id="UNIQUE_ID")

    def run(self, context: NodeContext, *, image: Pixels) -> NodeResult:
        batch, height, width = image.shape[:3]
        return outputs(width, height, batch)
