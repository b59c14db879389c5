"""Nodes that compose images, and that join and split their alpha channel."""

import numpy as np

from comfyui_workflow.sandbox.node import Folders, InputTypes, NodeContext, NodeResult
from comfyui_workflow.sandbox.nodes.resampling import resize, resize_mask
from comfyui_workflow.sandbox.nodes.typed_node import (
    IMAGE,
    IMAGE_NEW,
    MASK,
    MASK_NEW,
    Mask,
    Pixels,
    V3Node,
    offset,
    optional,
    outputs,
    required,
    switch,
)


class ImageCompositeMasked(V3Node):
    CATEGORY = "image/compositing"
    DISPLAY_NAME = "Image Composite Masked"
    DESCRIPTION = "Lays one image over another, where a mask says so."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            destination=IMAGE, source=IMAGE, x=offset(), y=offset(), resize_source=switch(False)
        ) | optional(mask=MASK)

    def run(
        self,
        context: NodeContext,
        *,
        destination: Pixels,
        source: Pixels,
        x: int,
        y: int,
        resize_source: bool,
        mask: Mask | None = None,
    ) -> NodeResult:
        below, above = with_same_channels(destination, source)
        if resize_source:
            above = resize(above, below.shape[2], below.shape[1], "bilinear")
        above = _repeated(above, len(below))
        return outputs(_composed(below, above, x, y, _cover(above, mask)))


class JoinImageWithAlpha(V3Node):
    CATEGORY = "image/compositing"
    DISPLAY_NAME = "Join Image with Alpha"
    DESCRIPTION = "Makes an image transparent where the mask is white."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(image=IMAGE_NEW, alpha=MASK_NEW)

    def run(self, context: NodeContext, *, image: Pixels, alpha: Mask) -> NodeResult:
        batch = min(len(image), len(alpha))
        opaque = 1 - resize_mask(alpha[:batch], image.shape[2], image.shape[1])
        return outputs(np.concatenate([image[:batch, :, :, :3], opaque[..., np.newaxis]], axis=-1))


class SplitImageWithAlpha(V3Node):
    CATEGORY = "image/compositing"
    DISPLAY_NAME = "Split Image with Alpha"
    DESCRIPTION = "The colours of an image, and a mask that is white where it is transparent."
    RETURN_TYPES = ("IMAGE", "MASK")

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(image=IMAGE_NEW)

    def run(self, context: NodeContext, *, image: Pixels) -> NodeResult:
        has_alpha = image.shape[-1] > 3
        transparent = 1 - image[..., 3] if has_alpha else np.zeros(image.shape[:3], np.float32)
        return outputs(image[..., :3], transparent)


def with_same_channels(below: Pixels, above: Pixels) -> tuple[Pixels, Pixels]:
    """Gives the second image the channels of the first: its alpha is removed, or an opaque alpha is added.

    (ComfyUI intends the same, but fails in the second case.)
    """
    if below.shape[-1] > above.shape[-1]:
        opaque = np.ones((*above.shape[:3], 1), np.float32)
        return below, np.concatenate([above, opaque], axis=-1)
    return below, above[..., : below.shape[-1]]


def _repeated(batch: Pixels, count: int) -> Pixels:
    return np.resize(batch, (count, *batch.shape[1:]))


def _cover(above: Pixels, mask: Mask | None) -> Pixels:
    if mask is None:
        return np.ones((*above.shape[:3], 1), np.float32)
    fitting = resize_mask(mask, above.shape[2], above.shape[1])
    return _repeated(fitting, len(above))[..., np.newaxis]


def _composed(below: Pixels, above: Pixels, x: int, y: int, cover: Pixels) -> Pixels:
    result = below.copy()
    place = result[:, max(y, 0) : max(y + above.shape[1], 0), max(x, 0) : max(x + above.shape[2], 0)]
    height, width = place.shape[1:3]
    top, left = max(-y, 0), max(-x, 0)
    visible = (slice(None), slice(top, top + height), slice(left, left + width))
    place[...] = cover[visible] * above[visible] + (1 - cover[visible]) * place
    return result
