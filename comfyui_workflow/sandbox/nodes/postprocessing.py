"""Nodes that blur, sharpen, blend and quantize images."""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from comfyui_workflow.sandbox.node import Folders, InputTypes, NodeContext, NodeResult
from comfyui_workflow.sandbox.nodes.compositing import with_same_channels
from comfyui_workflow.sandbox.nodes.resampling import from_eight_bits, resize, to_eight_bits
from comfyui_workflow.sandbox.nodes.typed_node import (
    IMAGE_NEW,
    Pixels,
    V3Node,
    choice_new,
    integer,
    number,
    outputs,
    required,
)


class ImageBlur(V3Node):
    CATEGORY = "image/filters"
    DISPLAY_NAME = "Blur Image"
    DESCRIPTION = "Gaussian blur."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            image=IMAGE_NEW,
            blur_radius=integer(1, 1, 31, step=1),
            sigma=number(1.0, 0.1, 10.0, step=0.1),
        )

    def run(self, context: NodeContext, *, image: Pixels, blur_radius: int, sigma: float) -> NodeResult:
        return outputs(_blur(image, blur_radius, sigma).astype(np.float32))


class ImageSharpen(V3Node):
    CATEGORY = "image/filters"
    DISPLAY_NAME = "Sharpen Image"
    DESCRIPTION = "Adds what a Gaussian blur would take away."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            image=IMAGE_NEW,
            sharpen_radius=integer(1, 1, 31, step=1, advanced=True),
            sigma=number(1.0, 0.1, 10.0, step=0.01, advanced=True),
            alpha=number(1.0, 0.0, 5.0, step=0.01, advanced=True),
        )

    def run(
        self, context: NodeContext, *, image: Pixels, sharpen_radius: int, sigma: float, alpha: float
    ) -> NodeResult:
        strength = 10 * alpha
        sharp = image + strength * (image - _blur(image, sharpen_radius, sigma))
        return outputs(np.clip(sharp, 0, 1).astype(np.float32))


class ImageBlend(V3Node):
    CATEGORY = "image/filters"
    DISPLAY_NAME = "Blend Images"
    DESCRIPTION = "Mixes two images; the second takes the size of the first."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        modes = ["normal", "multiply", "screen", "overlay", "soft_light", "difference"]
        return required(
            image1=IMAGE_NEW,
            image2=IMAGE_NEW,
            blend_factor=number(0.5, 0.0, 1.0, step=0.01),
            blend_mode=choice_new(modes),
        )

    def run(
        self,
        context: NodeContext,
        *,
        image1: Pixels,
        image2: Pixels,
        blend_factor: float,
        blend_mode: str,
    ) -> NodeResult:
        below, above = with_same_channels(image1, image2)
        if below.shape[1:3] != above.shape[1:3]:
            above = resize(above, below.shape[2], below.shape[1], "bicubic", "center")
        mixed = below * (1 - blend_factor) + _blended(below, above, blend_mode) * blend_factor
        return outputs(np.clip(mixed, 0, 1))


class ImageQuantize(V3Node):
    CATEGORY = "image/filters"
    DISPLAY_NAME = "Quantize Image"
    DESCRIPTION = "Reduces an image to a palette of its own."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        dithers = ["none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16"]
        return required(image=IMAGE_NEW, colors=integer(256, 1, 256, step=1), dither=choice_new(dithers))

    def run(self, context: NodeContext, *, image: Pixels, colors: int, dither: str) -> NodeResult:
        pictures = (Image.fromarray(picture) for picture in to_eight_bits(image[..., :3]))
        return outputs(
            np.stack([from_eight_bits(_quantized(picture, colors, dither)) for picture in pictures])
        )


def _blur(image: Pixels, radius: int, sigma: float) -> npt.NDArray[np.float64]:
    """Gaussian blur. As in ComfyUI, sigma refers to the range -1..1 for every radius. Mirrors the border."""
    positions = np.linspace(-1, 1, 2 * radius + 1)
    weights = np.exp(-(positions**2) / (2 * sigma**2))
    border = (radius, radius)
    padded = np.pad(image.astype(np.float64), ((0, 0), border, border, (0, 0)), mode="reflect")
    for axis in (1, 2):
        padded = _weighted_sum(padded, axis, weights / weights.sum())
    return padded


def _weighted_sum(
    padded: npt.NDArray[np.float64], axis: int, weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(weights), axis=axis)
    return np.asarray(windows @ weights)


def _blended(below: Pixels, above: Pixels, mode: str) -> Pixels:
    match mode:
        case "normal":
            return above
        case "multiply":
            return below * above
        case "screen":
            return 1 - (1 - below) * (1 - above)
        case "overlay":
            return np.where(below <= 0.5, 2 * below * above, 1 - 2 * (1 - below) * (1 - above))
        case "soft_light":
            darker = below - (1 - 2 * above) * below * (1 - below)
            lighter = below + (2 * above - 1) * (_soft_light_curve(below) - below)
            return np.where(above <= 0.5, darker, lighter)
        case "difference":
            return below - above  # signed, as in ComfyUI: the clip after the mix makes negatives black
        case _:
            raise ValueError(f"There is no blend mode {mode!r}.")


def _soft_light_curve(below: Pixels) -> Pixels:
    return np.where(below <= 0.25, ((16 * below - 12) * below + 4) * below, np.sqrt(below))


def _quantized(picture: Image.Image, colors: int, dither: str) -> Image.Image:
    palette = picture.quantize(colors=colors)
    if dither.startswith("bayer"):
        picture = _with_bayer_pattern(picture, palette, int(dither.removeprefix("bayer-")))
    method = Image.Dither.FLOYDSTEINBERG if dither == "floyd-steinberg" else Image.Dither.NONE
    return picture.quantize(palette=palette, dither=method).convert("RGB")


def _with_bayer_pattern(picture: Image.Image, palette: Image.Image, order: int) -> Image.Image:
    color_count = len(palette.getpalette() or ()) // 3
    pattern = _bayer_matrix(order) * (512 / color_count) + 0.5
    repeats = (math.ceil(picture.height / order), math.ceil(picture.width / order))
    tiled = np.tile(pattern, repeats)[: picture.height, : picture.width, np.newaxis]
    return Image.fromarray(np.clip(np.asarray(picture) + tiled, 0, 255).astype(np.uint8))


def _bayer_matrix(order: int) -> Pixels:
    """Returns thresholds of ordered dithering, centred at 0, within -0.5..0.5; `order` is a power of two."""
    if order == 1:
        return np.zeros((1, 1), np.float32)
    inner = _bayer_matrix(order // 2)
    cells = order * order
    return np.block([[inner - 1.5 / cells, inner + 0.5 / cells], [inner + 1.5 / cells, inner - 0.5 / cells]])
