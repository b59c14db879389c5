"""Draws example.png, a lake in the evening: `python -m comfyui_workflow.demo.draw_example`."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from comfyui_workflow.demo import EXAMPLE_PICTURE

Picture = NDArray[np.float64]

WIDTH, HEIGHT, SHORE = 640, 416, 268
HIGH_SKY, LOW_SKY, SUN = (38, 62, 112), (246, 178, 120), (255, 236, 190)
FAR, NEAR = (150, 116, 132), (22, 30, 42)
SUN_X, SUN_Y, SUN_RADIUS = 430, 178, 26
RIDGES = ((150, 34, 3), (186, 30, 8), (214, 26, 15), (238, 22, 27))
"""Height above the top, height of the peaks and seed of each mountain ridge, the farthest first."""


def draw() -> Image.Image:
    """Returns the picture at full size; it is the same every time."""
    view = _sky()
    for index, (top, relief, seed) in enumerate(RIDGES):
        _add_ridge(view, top, relief, seed, nearness=(index + 1) / len(RIDGES))
    _add_lake(view)
    return Image.fromarray(view.clip(0, 255).astype(np.uint8), "RGB")


def _sky() -> Picture:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    view = _blend(HIGH_SKY, LOW_SKY, (y / SHORE).clip(0, 1) ** 0.8)
    distance = np.hypot(x - SUN_X, y - SUN_Y)
    view = _blend(view, SUN, 0.75 * np.exp(-distance / 90))
    return _blend(view, SUN, (SUN_RADIUS - distance + 0.5).clip(0, 1))


def _add_ridge(view: Picture, top: int, relief: int, seed: int, *, nearness: float) -> None:
    y = np.arange(HEIGHT)[:, None]
    covered = (y - _skyline(top, relief, seed)[None, :] + 0.5).clip(0, 1)
    colour = _blend(FAR, NEAR, np.full((HEIGHT, WIDTH), nearness))
    haze = 0.35 * (1 - nearness) * ((y - top) / (SHORE - top)).clip(0, 1)
    view[:] = _blend(view, _blend(colour, LOW_SKY, np.broadcast_to(haze, (HEIGHT, WIDTH))), covered)


def _skyline(top: int, relief: int, seed: int) -> Picture:
    """Returns the height of the skyline per column: a sum of sine waves with decreasing length and height."""
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, 9)
    x = np.arange(WIDTH) / WIDTH * 2 * np.pi
    waves = [np.sin(x * 1.7**octave + phase) / 1.55**octave for octave, phase in enumerate(phases)]
    skyline: Picture = top - relief * np.sum(waves, axis=0) * 0.6
    return skyline


def _add_lake(view: Picture) -> None:
    """Draws the lake: the view above the shore, mirrored, darker, and shifted by small waves."""
    rows = np.arange(SHORE, HEIGHT)
    depth = rows - SHORE
    mirrored = SHORE - 1 - (depth * 1.25).astype(int)
    shift = (np.sin(depth * 0.9 + 30 / (depth + 6)) * (1 + depth * 0.05)).round().astype(int)
    for row, source, by in zip(rows, mirrored.clip(0), shift, strict=True):
        view[row] = np.roll(view[source], by, axis=0) * 0.78 + np.array(HIGH_SKY) * 0.14


def _blend(one: object, other: object, share: Picture) -> Picture:
    """Blends `share` (0 to 1) of `other` over `one`; both are a colour or a picture."""
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    result: Picture = first + (second - first) * share[..., None]
    return result


if __name__ == "__main__":
    draw().save(EXAMPLE_PICTURE, optimize=True)
