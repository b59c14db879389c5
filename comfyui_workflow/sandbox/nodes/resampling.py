"""Resizing of arrays [batch, height, width, channels], with the arithmetic of ComfyUI's five methods.

How it works: all methods except Lanczos are separable sums. Along one axis, each new pixel is a weighted sum
of a few old pixels, its *taps*. The sums use double precision, so an image of one colour keeps that colour
(torch, in single precision, can be one level off). Lanczos works on 8-bit pictures with Pillow, as in
ComfyUI.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from comfyui_workflow.sandbox.nodes.typed_node import Mask, Pixels

METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")


def resize(pixels: Pixels, width: int, height: int, method: str, crop: str = "disabled") -> Pixels:
    """Returns a resized copy. With `crop` "center", the image is first cut to the new proportions."""
    if crop == "center":
        pixels = _cut_to_proportions(pixels, width / height)
    if method == "lanczos":
        return _resize_lanczos(pixels, width, height)
    taps_of = _TAPS[method]
    tall = _resample(pixels, 1, taps_of(pixels.shape[1], height))
    return _resample(tall, 2, taps_of(pixels.shape[2], width))


def resize_mask(mask: Mask, width: int, height: int) -> Mask:
    return resize(mask[..., np.newaxis], width, height, "bilinear")[..., 0]


def to_eight_bits(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Converts 0..1 to 0..255. Values are truncated, not rounded (0.999 becomes 254), as in ComfyUI."""
    scaled: Pixels = np.clip(np.float32(255) * pixels, 0, 255)
    return scaled.astype(np.uint8)


def from_eight_bits(picture: Image.Image) -> Pixels:
    return np.asarray(picture).astype(np.float32) / np.float32(255)


def _cut_to_proportions(pixels: Pixels, new_aspect: float) -> Pixels:
    height, width = pixels.shape[1:3]
    old_aspect = width / height
    x = y = 0
    if old_aspect > new_aspect:
        x = round((width - width * (new_aspect / old_aspect)) / 2)
    elif old_aspect < new_aspect:
        y = round((height - height * (old_aspect / new_aspect)) / 2)
    return pixels[:, y : height - y, x : width - x]


def _resize_lanczos(pixels: Pixels, width: int, height: int) -> Pixels:
    pictures = (Image.fromarray(picture) for picture in to_eight_bits(pixels))
    return np.stack([from_eight_bits(p.resize((width, height), Image.Resampling.LANCZOS)) for p in pictures])


class _Taps(NamedTuple):
    """For each new pixel (row): the indices and the weights of the old pixels in its sum."""

    indices: npt.NDArray[np.intp]
    weights: npt.NDArray[np.float64]


def _resample(pixels: Pixels, axis: int, taps: _Taps) -> Pixels:
    shape = [1] * pixels.ndim
    shape[axis] = -1
    parts = (
        pixels.take(indices, axis=axis) * weights.reshape(shape)
        for indices, weights in zip(taps.indices.T, taps.weights.T, strict=True)
    )
    return np.asarray(sum(parts), np.float32)


def _centres(old: int, new: int) -> Pixels:
    """Returns the centre of each new pixel in units of old pixels; single precision, as in torch."""
    centres: Pixels = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * np.float32(old / new)
    return centres


def _nearest_taps(old: int, new: int) -> _Taps:
    indices = np.minimum(np.floor(_centres(old, new)).astype(np.intp), old - 1)
    return _Taps(indices[:, np.newaxis], np.ones((new, 1)))


def _bilinear_taps(old: int, new: int) -> _Taps:
    position = np.maximum(_centres(old, new) - np.float32(0.5), 0)
    left = np.minimum(np.floor(position).astype(np.intp), old - 1)
    share = (position - left).astype(np.float64)
    return _Taps(np.stack([left, np.minimum(left + 1, old - 1)], 1), np.stack([1 - share, share], 1))


def _bicubic_taps(old: int, new: int) -> _Taps:
    position = _centres(old, new) - np.float32(0.5)
    left = np.floor(position)
    share = (position - left).astype(np.float64)
    neighbours = np.arange(-1, 3)
    indices = np.clip(left.astype(np.intp)[:, np.newaxis] + neighbours, 0, old - 1)
    return _Taps(indices, _cubic(np.abs(share[:, np.newaxis] - neighbours)))


def _cubic(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' cubic convolution with a = -0.75, the value in torch."""
    a = -0.75
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def _area_taps(old: int, new: int) -> _Taps:
    start = np.arange(new) * old // new
    end = -(-(np.arange(1, new + 1) * old) // new)
    count = (end - start)[:, np.newaxis]
    place = np.arange(count.max())
    indices = np.minimum(start[:, np.newaxis] + place, old - 1)
    return _Taps(indices, np.where(place < count, 1 / count, 0))


_TAPS: dict[str, Callable[[int, int], _Taps]] = {
    "nearest-exact": _nearest_taps,
    "bilinear": _bilinear_taps,
    "area": _area_taps,
    "bicubic": _bicubic_taps,
}
