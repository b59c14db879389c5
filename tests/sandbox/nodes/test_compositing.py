import numpy as np
import pytest

from tests.sandbox.nodes.context import Context, flat_image, random_image, random_mask


def test_what_reaches_beyond_is_left_away(context: Context) -> None:
    below, above = random_image(8, 6), random_image(4, 4, seed=5)
    result = context.value(
        "ImageCompositeMasked", destination=below, source=above, x=6, y=3, resize_source=False
    )
    assert np.array_equal(result[:, 3:, 6:], above[:, :3, :2])
    assert np.array_equal(result[:, :3], below[:, :3])
    assert np.array_equal(result[:, :, :6], below[:, :, :6])
    outside = context.value(
        "ImageCompositeMasked", destination=below, source=above, x=100, y=3, resize_source=False
    )
    assert np.array_equal(outside, below)


def test_a_mask_mixes(context: Context) -> None:
    below, above, mask = random_image(8, 6), random_image(8, 6, seed=5), random_mask(8, 6)
    kept = below.copy()
    result = context.value(
        "ImageCompositeMasked", destination=below, source=above, x=0, y=0, resize_source=False, mask=mask
    )
    cover = mask[..., np.newaxis]
    assert result == pytest.approx(above * cover + below * (1 - cover), abs=1e-6)
    assert np.array_equal(below, kept)  # another node may use it still


def test_source_and_mask_are_resized_and_repeated(context: Context) -> None:
    below = np.repeat(flat_image(8, 6, 0, 0, 0), 3, axis=0)
    above = np.concatenate([flat_image(2, 2, 1, 1, 1), flat_image(2, 2, 0.5, 0.5, 0.5)])
    result = context.value(
        "ImageCompositeMasked",
        destination=below,
        source=above,
        x=0,
        y=0,
        resize_source=True,
        mask=np.full((1, 3, 3), 0.5, np.float32),
    )
    assert result.shape == (3, 6, 8, 3)
    assert [float(image.mean()) for image in result] == [0.5, 0.25, 0.5]


@pytest.mark.parametrize(("below", "above"), [(3, 4), (4, 3)])
def test_channels_follow_the_destination(context: Context, below: int, above: int) -> None:
    result = context.value(
        "ImageCompositeMasked",
        destination=flat_image(4, 4, *[0.0] * below),
        source=flat_image(4, 4, *[0.5] * above),
        x=0,
        y=0,
        resize_source=False,
    )
    assert result.shape[-1] == below
    assert result[0, 0, 0].tolist() == [0.5, 0.5, 0.5, 1.0][:below]


def test_alpha_is_the_opposite_of_a_mask(context: Context) -> None:
    image, mask = random_image(6, 5), random_mask(6, 5)
    joined = context.value("JoinImageWithAlpha", image=image, alpha=mask)
    assert np.array_equal(joined[..., 3], 1 - mask)
    colors, transparent = context.values("SplitImageWithAlpha", image=joined)
    assert np.array_equal(colors, image)
    assert transparent == pytest.approx(mask, abs=1e-7)
    assert np.all(context.values("SplitImageWithAlpha", image=image)[1] == 0)


def test_a_small_mask_is_stretched(context: Context) -> None:
    joined = context.value(
        "JoinImageWithAlpha", image=random_image(8, 6), alpha=np.full((1, 64, 64), 0.25, np.float32)
    )
    assert np.all(joined[..., 3] == 0.75)
