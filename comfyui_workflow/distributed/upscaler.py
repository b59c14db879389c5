"""UltimateSDUpscaleDistributed, as the node of Ultimate SD Upscale that it is a copy of."""

from collections.abc import Mapping
from typing import Any

PLAIN_UPSCALER = "UltimateSDUpscaleNoUpscale"
RENAMED = {"padding": "tile_padding"}
TAKEN = (
    "upscaled_image",
    "model",
    "positive",
    "negative",
    "vae",
    "seed",
    "steps",
    "cfg",
    "sampler_name",
    "scheduler",
    "denoise",
    "tile_width",
    "tile_height",
    "mask_blur",
    "padding",
    "force_uniform_tiles",
    "tiled_decode",
)
WITHOUT_SEAM_FIX = {
    "mode_type": "Linear",
    "seam_fix_mode": "None",
    "seam_fix_denoise": 1.0,
    "seam_fix_mask_blur": 8,
    "seam_fix_width": 64,
    "seam_fix_padding": 16,
}
"""The inputs that the copy does not have: it goes from tile to tile, and does not draw over the seams."""


def plain_upscaler(node: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the node for an instance that has Ultimate SD Upscale."""
    inputs = {RENAMED.get(name, name): node["inputs"][name] for name in TAKEN if name in node["inputs"]}
    return {**node, "class_type": PLAIN_UPSCALER, "inputs": {**inputs, **WITHOUT_SEAM_FIX}}
