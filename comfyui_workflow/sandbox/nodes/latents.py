"""Nodes that create and change latents. Other entries of a latent, besides its samples, are kept."""

import numpy as np

from comfyui_workflow.sandbox.node import Folders, InputTypes, NodeContext, NodeResult
from comfyui_workflow.sandbox.nodes.resampling import resize
from comfyui_workflow.sandbox.nodes.stand_in_values import (
    PIXELS_PER_LATENT,
    latent_of,
    pictures_of,
)
from comfyui_workflow.sandbox.nodes.stand_ins import LATENT
from comfyui_workflow.sandbox.nodes.typed_node import (
    LARGEST_SIDE,
    MASK,
    Latent,
    Mask,
    TypedNode,
    choice,
    integer,
    number,
    outputs,
    required,
)

_METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "bislerp")


class EmptyLatentImage(TypedNode):
    CATEGORY = "model/latent"
    DISPLAY_NAME = "Empty Latent Image"
    DESCRIPTION = "A batch of latents of nothing but zeros."
    RETURN_TYPES = ("LATENT",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            width=integer(512, 16, LARGEST_SIDE, step=8),
            height=integer(512, 16, LARGEST_SIDE, step=8),
            batch_size=integer(1, 1, 4096),
        )

    def run(self, context: NodeContext, *, width: int, height: int, batch_size: int) -> NodeResult:
        shape = (batch_size, 4, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT)
        return outputs({"samples": np.zeros(shape, np.float32)})


class LatentUpscale(TypedNode):
    CATEGORY = "model/latent"
    DISPLAY_NAME = "Upscale Latent"
    DESCRIPTION = (
        "Resizes a latent to a width and a height in pixels; a 0 for one of them keeps the proportions."
    )
    RETURN_TYPES = ("LATENT",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            samples=LATENT,
            upscale_method=choice(_METHODS),
            width=integer(512, 0, LARGEST_SIDE, step=8),
            height=integer(512, 0, LARGEST_SIDE, step=8),
            crop=choice(["disabled", "center"]),
        )

    def run(
        self,
        context: NodeContext,
        *,
        samples: Latent,
        upscale_method: str,
        width: int,
        height: int,
        crop: str,
    ) -> NodeResult:
        if width == 0 and height == 0:
            return outputs(samples)
        old_height, old_width = (side * PIXELS_PER_LATENT for side in samples["samples"].shape[2:])
        width = width or round(old_width * height / old_height)
        height = height or round(old_height * width / old_width)
        return outputs(_resized(samples, width, height, upscale_method, crop))


class LatentUpscaleBy(TypedNode):
    CATEGORY = "model/latent"
    DISPLAY_NAME = "Upscale Latent By"
    DESCRIPTION = "Resizes a latent by a factor."
    RETURN_TYPES = ("LATENT",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            samples=LATENT, upscale_method=choice(_METHODS), scale_by=number(1.5, 0.01, 8.0, step=0.01)
        )

    def run(
        self, context: NodeContext, *, samples: Latent, upscale_method: str, scale_by: float
    ) -> NodeResult:
        height, width = (round(side * scale_by) * PIXELS_PER_LATENT for side in samples["samples"].shape[2:])
        return outputs(_resized(samples, width, height, upscale_method, "disabled"))


class SetLatentNoiseMask(TypedNode):
    CATEGORY = "model/latent"
    DISPLAY_NAME = "Set Latent Noise Mask"
    DESCRIPTION = "Lets the sampler paint only where a mask is white."
    RETURN_TYPES = ("LATENT",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(samples=LATENT, mask=MASK)

    def run(self, context: NodeContext, *, samples: Latent, mask: Mask) -> NodeResult:
        return outputs(samples | {"noise_mask": mask})


def _resized(latent: Latent, width: int, height: int, method: str, crop: str) -> Latent:
    """Resizes a latent. Bicubic replaces "bislerp" (spherical interpolation): enough for a stand-in."""
    pixels = pictures_of(latent)
    width, height = (max(1, side // PIXELS_PER_LATENT) * PIXELS_PER_LATENT for side in (width, height))
    method = "bicubic" if method == "bislerp" else method
    rest = {key: value for key, value in latent.items() if key not in ("samples", "pictures")}
    return latent_of(np.clip(resize(pixels, width, height, method, crop), 0, 1), **rest)
