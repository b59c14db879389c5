import numpy as np
import pytest

from tests.sandbox.nodes.context import Context, flat_image, random_image


def test_invert(context: Context) -> None:
    image = random_image(5, 4)
    assert np.array_equal(context.value("ImageInvert", image=image), 1 - image)


def test_crop_stops_at_the_border(context: Context) -> None:
    image = random_image(10, 8)
    inside = context.value("ImageCrop", image=image, width=3, height=4, x=5, y=2)
    assert np.array_equal(inside, image[:, 2:6, 5:8])
    beyond = context.value("ImageCrop", image=image, width=300, height=400, x=500, y=200)
    assert np.array_equal(beyond, image[:, 7:8, 9:10])


def test_flip_and_rotate(context: Context) -> None:
    image = random_image(3, 2)
    upside_down = context.value("ImageFlip", image=image, flip_method="x-axis: vertically")
    assert np.array_equal(upside_down, image[:, ::-1])
    mirrored = context.value("ImageFlip", image=image, flip_method="y-axis: horizontally")
    assert np.array_equal(mirrored, image[:, :, ::-1])
    turned = context.value("ImageRotate", image=image, rotation="90 degrees")
    assert turned.shape == (1, 3, 2, 3)
    assert np.array_equal(turned[0, 0, 1], image[0, 0, 0])  # clockwise: upper left goes to upper right


@pytest.mark.parametrize(
    ("rotation", "turns"), [("none", 0), ("90 degrees", 1), ("180 degrees", 2), ("270 degrees", 3)]
)
def test_four_turns_make_a_circle(context: Context, rotation: str, turns: int) -> None:
    image = turned = random_image(5, 3)
    for _ in range(4):
        turned = context.value("ImageRotate", image=turned, rotation=rotation)
    assert np.array_equal(turned, image)
    assert np.array_equal(
        context.value("ImageRotate", image=image, rotation=rotation), np.rot90(image, -turns, (1, 2))
    )


def test_padding_for_outpainting_is_grey_and_its_mask_feathered(context: Context) -> None:
    image = flat_image(20, 24, 1, 0, 0)
    padded, mask = context.values(
        "ImagePadForOutpaint", image=image, left=8, top=0, right=0, bottom=16, feathering=4
    )
    assert padded.shape == (1, 40, 28, 3)
    assert mask.shape == (1, 40, 28)
    assert np.array_equal(padded[:, :24, 8:], image)
    assert np.all(padded[:, :, :8] == 0.5)
    assert np.all(mask[0, :, :8] == 1)
    assert np.all(mask[0, 24:] == 1)
    # In the middle of the left side: 0, 1, 2, 3 pixels from the padding of (4 - distance) / 4, squared.
    assert mask[0, 5, 8:13].tolist() == [1, 0.5625, 0.25, 0.0625, 0]
    # Towards the bottom the last row is 1 pixel away.
    assert mask[0, 19:24, 20].tolist() == [0, 0, 0.0625, 0.25, 0.5625]
    assert mask[0, 0, 27] == 0  # neither top nor right was padded


def test_no_feathering_where_it_would_meet_itself(context: Context) -> None:
    mask = context.values(
        "ImagePadForOutpaint", image=flat_image(20, 24, 1), left=8, top=8, right=8, bottom=8, feathering=10
    )[1]
    assert np.all(mask[0, 8:32, 8:28] == 0)
