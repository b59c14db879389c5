import numpy as np
import pytest

from comfyui_workflow.sandbox.nodes.resampling import METHODS
from tests.sandbox.nodes.context import Context, flat_image, random_image

ROW = np.array([0.0, 0.25, 0.5, 1.0], np.float32).reshape(1, 1, 4, 1)


def _row(context: Context, method: str, width: int) -> list[float]:
    scaled = context.value(
        "ImageScale", image=ROW, upscale_method=method, width=width, height=1, crop="disabled"
    )
    assert scaled.dtype == np.float32
    return scaled[0, 0, :, 0].tolist()  # type: ignore[no-any-return]


def test_nearest_exact_takes_the_pixel_under_the_middle_of_the_new_one(context: Context) -> None:
    assert _row(context, "nearest-exact", 2) == [0.25, 1.0]  # middles at 1.0 and 3.0
    assert _row(context, "nearest-exact", 8) == [0, 0, 0.25, 0.25, 0.5, 0.5, 1, 1]


def test_bilinear_mixes_the_two_neighbours(context: Context) -> None:
    assert _row(context, "bilinear", 2) == pytest.approx([0.125, 0.75])
    # Middles fall at -0.25 (held at the border), 0.25, 0.75, 1.25, ...
    expected = [0, 0.0625, 0.1875, 0.3125, 0.4375, 0.625, 0.875, 1]
    assert _row(context, "bilinear", 8) == pytest.approx(expected)


def test_area_takes_the_mean_of_all_it_touches(context: Context) -> None:
    assert _row(context, "area", 2) == pytest.approx([0.125, 0.75])
    assert _row(context, "area", 3) == pytest.approx([0.125, 0.375, 0.75])  # 0..1, 1..2, 2..3
    assert _row(context, "area", 1) == pytest.approx([0.4375])


def test_bicubic_weighs_four_neighbours(context: Context) -> None:
    # Half way between two pixels the weights of a = -0.75 are -0.09375, 0.59375, 0.59375, -0.09375.
    first = (-0.09375 * 0 + 0.59375 * 0) + (0.59375 * 0.25 - 0.09375 * 0.5)
    second = (-0.09375 * 0.25 + 0.59375 * 0.5) + (0.59375 * 1 - 0.09375 * 1)
    assert _row(context, "bicubic", 2) == pytest.approx([first, second])


@pytest.mark.parametrize("method", METHODS)
def test_one_colour_stays_that_colour(context: Context, method: str) -> None:
    color = (18 / 255, 52 / 255, 86 / 255)
    scaled = context.value(
        "ImageScale",
        image=flat_image(60, 45, *color),
        upscale_method=method,
        width=23,
        height=31,
        crop="center",
    )
    assert scaled.shape == (1, 31, 23, 3)
    assert np.array_equal(scaled, flat_image(23, 31, *color))


def test_center_cuts_off_what_the_new_proportions_do_not_hold(context: Context) -> None:
    image = random_image(10, 4)
    scaled = context.value(
        "ImageScale", image=image, upscale_method="nearest-exact", width=4, height=4, crop="center"
    )
    assert np.array_equal(scaled, image[:, :, 3:7])


@pytest.mark.parametrize(
    ("width", "height", "size"), [(0, 20, (40, 20)), (10, 0, (10, 5)), (0, 0, (32, 16)), (7, 9, (7, 9))]
)
def test_a_side_of_0_keeps_the_proportions(
    context: Context, width: int, height: int, size: tuple[int, int]
) -> None:
    scaled = context.value(
        "ImageScale",
        image=random_image(32, 16),
        upscale_method="area",
        width=width,
        height=height,
        crop="disabled",
    )
    assert scaled.shape[2:0:-1] == size


def test_other_ways_to_say_the_size(context: Context) -> None:
    image = random_image(32, 16, batch=2)
    by_factor = context.value("ImageScaleBy", image=image, upscale_method="bilinear", scale_by=1.5)
    assert by_factor.shape == (2, 24, 48, 3)
    total = context.value("ImageScaleToTotalPixels", image=image, upscale_method="lanczos", megapixels=0.01)
    assert total.shape == (2, 72, 145, 3)  # 10485 pixels, 2 to 1
    longest = context.value(
        "ImageScaleToMaxDimension", image=image, upscale_method="bicubic", largest_size=100
    )
    assert longest.shape == (2, 50, 100, 3)


def test_padding_puts_the_image_in_the_middle(context: Context) -> None:
    image = random_image(8, 4)
    padded = context.value(
        "ResizeAndPadImage",
        image=image,
        target_width=8,
        target_height=10,
        padding_color="white",
        interpolation="nearest-exact",
    )
    assert np.array_equal(padded[:, 3:7], image)
    assert np.all(padded[:, :3] == 1)
    assert np.all(padded[:, 7:] == 1)
