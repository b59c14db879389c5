import numpy as np
import pytest

from tests.sandbox.nodes.context import Context, flat_image, random_image, random_mask


def _mask(*rows: list[float]) -> np.ndarray:
    return np.array([rows], np.float32)


def test_solid_invert_crop_threshold(context: Context) -> None:
    solid = context.value("SolidMask", value=0.25, width=5, height=4)
    assert solid.shape == (1, 4, 5)
    assert np.all(solid == 0.25)
    mask = random_mask(8, 6)
    assert np.array_equal(context.value("InvertMask", mask=mask), 1 - mask)
    cropped = context.value("CropMask", mask=mask, x=2, y=1, width=3, height=99)
    assert np.array_equal(cropped, mask[:, 1:, 2:5])
    row = context.value("ThresholdMask", mask=_mask([0.4, 0.5, 0.6]), value=0.5)
    assert row.tolist() == [[[0, 0, 1]]]


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("multiply", [0.25, 0.6, 0.0]),
        ("add", [1.0, 1.0, 0.2]),
        ("subtract", [0.0, 0.0, 0.2]),
        ("and", [0, 1, 0]),
        ("or", [0, 1, 0]),
        ("xor", [0, 0, 0]),
    ],
)
def test_composite_operations(context: Context, operation: str, expected: list[float]) -> None:
    destination, source = _mask([0.5, 0.6, 0.2]), _mask([0.5, 1.0, 0.0])  # 0.5 rounds to the even 0
    combined = context.value(
        "MaskComposite", destination=destination, source=source, x=0, y=0, operation=operation
    )
    assert combined[0, 0] == pytest.approx(expected)


def test_composite_leaves_the_rest_alone(context: Context) -> None:
    combined = context.value(
        "MaskComposite",
        destination=np.zeros((1, 4, 5), np.float32),
        source=np.ones((1, 3, 3), np.float32),
        x=3,
        y=2,
        operation="add",
    )
    assert combined.sum() == 4
    assert np.all(combined[0, 2:, 3:] == 1)


def test_feather_fades_as_comfyui_does(context: Context) -> None:
    def feathered(**sides: int) -> list[float]:
        mask = np.ones((1, 1, 6), np.float32)
        all_sides = {"left": 0, "right": 0, "top": 0, "bottom": 0} | sides
        return context.value("FeatherMask", mask=mask, **all_sides)[0, 0].tolist()  # type: ignore[no-any-return]

    assert feathered(left=4) == [0.25, 0.5, 0.75, 1, 1, 1]
    # From the right, its first step falls on the first column: -0 is 0.
    assert feathered(right=4) == [0.25, 1, 1, 1, 0.75, 0.5]


@pytest.mark.parametrize(("tapered", "count"), [(True, 13), (False, 25)])
def test_grow_and_shrink(context: Context, tapered: bool, count: int) -> None:
    point = np.zeros((1, 9, 9), np.float32)
    point[0, 4, 4] = 0.8
    grown = context.value("GrowMask", mask=point, expand=2, tapered_corners=tapered)
    assert np.count_nonzero(grown == np.float32(0.8)) == count
    shrunk = context.value("GrowMask", mask=grown, expand=-2, tapered_corners=tapered)
    assert np.array_equal(shrunk, point)
    everywhere = context.value("GrowMask", mask=point, expand=16384, tapered_corners=tapered)
    assert np.all(everywhere == np.float32(0.8))


def test_masks_to_images_and_back(context: Context) -> None:
    mask = random_mask(5, 4)
    grey = context.value("MaskToImage", mask=mask)
    assert grey.shape == (1, 4, 5, 3)
    image = random_image(5, 4, channels=4)
    for index, channel in enumerate(["red", "green", "blue", "alpha"]):
        assert np.array_equal(context.value("ImageToMask", image=image, channel=channel), image[..., index])
    assert np.array_equal(context.value("ImageToMask", image=grey, channel="blue"), mask)


def test_one_colour_to_a_mask(context: Context) -> None:
    image = np.concatenate([flat_image(2, 1, 1, 128 / 255, 0), flat_image(3, 1, 1, 127 / 255, 0)], axis=2)
    mask = context.value("ImageColorToMask", image=image, color=0xFF8000)
    assert mask.tolist() == [[[1, 1, 0, 0, 0]]]
