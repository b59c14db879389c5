"""Pictures of the stand-in sampler: soft colours and discs, computed only from the prompt and the seed.

The same recipe gives the same picture at every size, so a small preview shows the same picture as the result.
"""

import colorsys
import hashlib
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from comfyui_workflow.sandbox.nodes.typed_node import Pixels

MARK = "sandbox"

_HUES = {
    "red": 0.0,
    "rose": 0.95,
    "sunset": 0.05,
    "orange": 0.08,
    "desert": 0.1,
    "gold": 0.13,
    "yellow": 0.15,
    "green": 0.34,
    "forest": 0.36,
    "teal": 0.48,
    "ocean": 0.54,
    "sea": 0.53,
    "sky": 0.56,
    "blue": 0.61,
    "night": 0.66,
    "galaxy": 0.72,
    "purple": 0.78,
    "pink": 0.91,
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All parameters of a painted picture; `index` is its position in the batch."""

    positive: str
    negative: str
    model: str
    seed: int
    index: int = 0


def paint(recipe: Recipe, width: int, height: int) -> Pixels:
    """Returns the picture of a recipe as an array [height, width, 3], values 0..1."""
    generator = _generator(recipe)
    hue = _hue(recipe.positive, generator)
    x, y = _coordinates(width, height)
    picture = _sky(hue, x, y, generator)
    for _ in range(generator.integers(5, 9)):
        _add_disc(picture, hue, x, y, generator)
    vignette = 1 / (1 + 0.2 * (x * x + y * y)[..., np.newaxis])
    return np.clip(picture * vignette, 0, 1).astype(np.float32)


def noise(recipe: Recipe, width: int, height: int) -> Pixels:
    """Returns the random noise from which a sampler starts."""
    return _generator(recipe).random((height, width, 3), np.float32)


def add_mark(picture: Pixels) -> None:
    """Writes "sandbox" into the lower left corner: nobody must mistake the picture for a model's output."""
    height, width = picture.shape[:2]
    if width < 96 or height < 48:
        return
    size = max(10, height // 32)
    stencil = Image.new("L", (width, height))
    font = ImageFont.load_default(size)
    ImageDraw.Draw(stencil).text((size // 2, height - size * 2), MARK, fill=255, font=font)
    cover = np.asarray(stencil, np.float32)[..., np.newaxis] * np.float32(0.7 / 255)
    picture[...] = picture * (1 - cover) + cover


def _generator(recipe: Recipe) -> np.random.Generator:
    digest = hashlib.sha256(repr(recipe).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def _hue(words: str, generator: np.random.Generator) -> float:
    """Returns the hue of the first colour word in the prompt, or else a random hue."""
    any_hue = generator.random()
    named = (_HUES[word] for word in re.findall(r"[a-z]+", words.lower()) if word in _HUES)
    return next(named, any_hue)


def _coordinates(width: int, height: int) -> tuple[Pixels, Pixels]:
    """Returns the x and y coordinates of each pixel, relative to the centre; the shorter side is -1 to 1."""
    shorter = min(width, height)
    columns = (2 * np.arange(width, dtype=np.float32) + 1 - width) / shorter
    rows = (2 * np.arange(height, dtype=np.float32) + 1 - height) / shorter
    x, y = np.meshgrid(columns.astype(np.float32), rows.astype(np.float32))
    return x, y


def _color(hue: float, saturation: float, value: float) -> npt.NDArray[np.float32]:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def _sky(hue: float, x: Pixels, y: Pixels, generator: np.random.Generator) -> Pixels:
    """Returns a gradient between two neighbouring hues, distorted by slow waves."""
    bent = y / 2 + 0.5
    for _ in range(3):
        across, down, start, strength = generator.uniform((-2, -2, 0, 0.03), (2, 2, 6.3, 0.12))
        bent = bent + strength * np.sin(across * x + down * y + start)
    share = np.clip(bent, 0, 1)[..., np.newaxis]
    shift = generator.uniform(-0.12, 0.12)
    above, below = _color(hue, 0.55, 0.95), _color(hue + shift, 0.75, 0.35)
    return ((1 - share) * above + share * below).astype(np.float32)


def _add_disc(picture: Pixels, hue: float, x: Pixels, y: Pixels, generator: np.random.Generator) -> None:
    left, top, radius, softness, strength = generator.uniform(
        (-1, -1, 0.12, 0.01, 0.3), (1, 1, 0.5, 0.2, 0.75)
    )
    color = _color(hue + generator.normal(0, 0.08), generator.uniform(0.35, 0.85), generator.uniform(0.55, 1))
    distance = np.hypot(x - left, y - top)
    cover = np.clip((radius - distance) / softness, 0, 1)[..., np.newaxis] * strength
    picture[...] = picture * (1 - cover) + cover * color
