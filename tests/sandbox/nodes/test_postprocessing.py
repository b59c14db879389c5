import math

import numpy as np
import pytest

from tests.sandbox.nodes.context import Context, flat_image, random_image


def _gaussian(radius: int, sigma: float) -> np.ndarray:
    """Returns a Gaussian kernel; the distance from the centre to the end of the middle row is 1."""
    side = 2 * radius + 1
    kernel = np.array(
        [
            [
                math.exp(-((x / radius) ** 2 + (y / radius) ** 2) / (2 * sigma**2))
                for x in range(-radius, radius + 1)
            ]
            for y in range(-radius, radius + 1)
        ]
    )
    assert kernel.shape == (side, side)
    return kernel / kernel.sum()


def _mirrored(index: int, length: int) -> int:
    """Mirrors an index at the borders, without repeating the border pixel."""
    return -index if index < 0 else 2 * (length - 1) - index if index >= length else index


@pytest.mark.parametrize(("radius", "sigma"), [(1, 1.0), (3, 0.4), (5, 8.0)])
def test_blur_is_a_weighted_mean_of_the_square_around(context: Context, radius: int, sigma: float) -> None:
    image = random_image(11, 9)
    blurred = context.value("ImageBlur", image=image, blur_radius=radius, sigma=sigma)
    kernel = _gaussian(radius, sigma)
    for row, column in [(0, 0), (4, 5), (8, 10), (1, 9)]:
        expected = sum(
            kernel[dy + radius, dx + radius] * image[0, _mirrored(row + dy, 9), _mirrored(column + dx, 11)]
            for dy in range(-radius, radius + 1)
            for dx in range(-radius, radius + 1)
        )
        assert blurred[0, row, column] == pytest.approx(expected, abs=1e-6)


def test_sharpen_takes_ten_times_alpha_of_the_blur_away(context: Context) -> None:
    image = random_image(9, 7) * np.float32(0.1) + np.float32(
        0.45
    )  # little contrast, so that nothing is clipped
    blurred = context.value("ImageBlur", image=image, blur_radius=2, sigma=0.7)
    sharp = context.value("ImageSharpen", image=image, sharpen_radius=2, sigma=0.7, alpha=0.25)
    assert sharp == pytest.approx(image * 3.5 - blurred * 2.5, abs=1e-6)
    clipped = context.value("ImageSharpen", image=random_image(9, 7), sharpen_radius=2, sigma=1.0, alpha=5.0)
    assert clipped.min() == 0
    assert clipped.max() == 1


@pytest.mark.parametrize(
    ("mode", "below", "above", "expected"),
    [
        ("normal", 0.2, 0.6, 0.6),
        ("multiply", 0.5, 0.6, 0.3),
        ("screen", 0.5, 0.6, 0.8),
        ("overlay", 0.25, 0.6, 0.3),
        ("overlay", 0.75, 0.6, 0.8),
        ("soft_light", 0.5, 0.25, 0.375),
        ("soft_light", 0.64, 0.75, 0.72),  # sqrt(0.64) is 0.8: half way there
        ("soft_light", 0.25, 1.0, 0.5),  # the polynomial meets the root here
        ("difference", 0.9, 0.4, 0.5),
        ("difference", 0.4, 0.9, 0.0),  # negative, hence black
    ],
)
def test_blend_modes(context: Context, mode: str, below: float, above: float, expected: float) -> None:
    def blended(factor: float) -> float:
        image = context.value(
            "ImageBlend",
            image1=flat_image(2, 2, below),
            image2=flat_image(2, 2, above),
            blend_factor=factor,
            blend_mode=mode,
        )
        return float(image[0, 0, 0, 0])

    assert blended(1.0) == pytest.approx(expected, abs=1e-6)
    assert blended(0.0) == pytest.approx(below)


def test_blend_gives_the_second_image_the_form_of_the_first(context: Context) -> None:
    blended = context.value(
        "ImageBlend",
        image1=flat_image(8, 6, 0, 0, 0),
        image2=flat_image(5, 5, 1, 1, 1, 0.5),
        blend_factor=0.5,
        blend_mode="normal",
    )
    assert np.array_equal(blended, flat_image(8, 6, 0.5, 0.5, 0.5))


@pytest.mark.parametrize("dither", ["none", "floyd-steinberg", "bayer-2", "bayer-16"])
def test_quantize_leaves_so_many_colours(context: Context, dither: str) -> None:
    image = random_image(40, 30)
    quantized = context.value("ImageQuantize", image=image, colors=5, dither=dither)
    assert quantized.shape == image.shape
    assert 1 < len(np.unique(quantized.reshape(-1, 3), axis=0)) <= 5
