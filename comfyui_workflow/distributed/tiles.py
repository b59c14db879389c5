"""Tiles of UltimateSDUpscaleDistributed (ComfyUI-Distributed 1.4.4): where they are cut and put back.

How the plugin works. Tile sizes are rounded to multiples of 8. The grid starts at (0, 0); a tile at the
right or lower edge may reach beyond the picture. For each tile:

1. Cut: the rectangle of the tile, `padding` pixels more on each side. With `force_uniform_tiles` it grows
   to the shape of tile + padding, as far as the picture allows; else to multiples of 8 pixels. The cut is
   scaled to the process size (Lanczos, 8 bits per channel).
2. Render: VAEEncode, KSampler with the seed of the node (the same for all tiles), VAEDecode or
   VAEDecodeTiled with tiles of 512. Conditioning with areas, masks or ControlNet pictures is cut like the
   picture.
3. Put back: the result is scaled to the size of the cut (Lanczos) and laid over the picture, with a mask of
   the whole picture's size as alpha: white in the rectangle of the tile (its right and lower edge
   included), GaussianBlur of `mask_blur`.

A tile is cut from the picture with all tiles before it put back, where the same participant rendered those.
With workers, the master and they take tiles from one queue as they become free, and each sees its own tiles
only; the master puts the workers' tiles back at last, in the order of the grid. So the pixels along the
seams depend on who was how fast, and two runs of the plugin differ. All pictures of a batch are rendered
together for each tile; the batch has 1 or 4n + 1 pictures. Whole pictures as units (`dynamic_threshold`)
are no longer reached: any worker means tiles.

What plain nodes can render: the plugin's node is a copy of UltimateSDUpscaleNoUpscale of Ultimate SD
Upscale (mode Linear, no seam fix), which renders the whole picture on one instance (`upscaler`). One tile
alone is ImageCrop to `cut`, ImageScale to `process_size`, VAEEncode, KSampler, VAEDecode, ImageScale back;
conditioning that depends on the place is then not cut. The size of the picture must be known for that
before the workflow runs.
"""

from dataclasses import dataclass
from math import ceil

Box = tuple[int, int, int, int]
"""Left, upper, right, lower; the last two are the first ones outside."""
STEP = 8
"""Pixels of a picture for one of a latent."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    x: int
    y: int
    """Upper left corner in the grid."""
    cut: Box
    process_size: tuple[int, int]
    """Width and height of the picture that is sampled."""


def tiles(
    picture: tuple[int, int], tile: tuple[int, int], padding: int, *, uniform: bool
) -> tuple[Tile, ...]:
    """Returns the tiles of a picture, row by row. Sizes are width and height."""
    width, height = (_rounded(length) for length in tile)
    columns, rows = ceil(picture[0] / width), ceil(picture[1] / height)
    corners = [(column * width, row * height) for row in range(rows) for column in range(columns)]
    return tuple(_tile(picture, (width, height), corner, padding, uniform=uniform) for corner in corners)


def _tile(
    picture: tuple[int, int], size: tuple[int, int], corner: tuple[int, int], padding: int, *, uniform: bool
) -> Tile:
    spans = [_span(*lengths, padding) for lengths in zip(corner, size, picture, strict=True)]
    lengths = [end - start for start, end in spans]
    if uniform:
        process = [_rounded(length + padding) for length in size]
        wanted = _with_ratio(lengths, process[0] / process[1])
    else:
        process = wanted = [max(STEP, ceil(length / STEP) * STEP) for length in lengths]
    (left, right), (upper, lower) = (
        _expanded(*span, limit, length) for span, limit, length in zip(spans, picture, wanted, strict=True)
    )
    return Tile(
        x=corner[0],
        y=corner[1],
        cut=(left, upper, right, lower),
        process_size=(process[0], process[1]),
    )


def _rounded(length: int) -> int:
    return round(length / STEP) * STEP


def _span(start: int, length: int, limit: int, padding: int) -> tuple[int, int]:
    """Returns start and end of a padded tile in one direction."""
    end = min(min(start + length + 1, limit) + padding, limit)
    return max(start - padding, 0), end - 1 if end < limit else end


def _with_ratio(lengths: list[int], ratio: float) -> list[int]:
    """Returns the smallest size of this ratio of width to height that has the lengths in it."""
    width, height = lengths
    if width / height > ratio:
        return [width, round(width / ratio)]
    return [round(height * ratio), height]


def _expanded(start: int, end: int, limit: int, wanted: int) -> tuple[int, int]:
    """Grows a span to the wanted length: half of it at the end, then at the start, then again at the end."""
    end = min(end + (wanted - (end - start)) // 2, limit)
    start = max(start - (wanted - (end - start)), 0)
    return start, min(end + wanted - (end - start), limit)
