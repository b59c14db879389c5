import numpy as np

from tests.sandbox.nodes.context import Context, flat_image, random_image


def test_an_empty_image_has_its_colour(context: Context) -> None:
    image = context.value("EmptyImage", width=4, height=3, batch_size=2, color=0xFF8000)
    assert image.shape == (2, 3, 4, 3)
    assert image.dtype == np.float32
    assert image[1, 2, 3].tolist() == [1, np.float32(128 / 255), 0]


def test_a_batch_takes_the_size_of_its_first_image(context: Context) -> None:
    first, second = random_image(6, 4), random_image(6, 4, batch=2, seed=9)
    assert np.array_equal(
        context.value("ImageBatch", image1=first, image2=second), np.concatenate([first, second])
    )
    mixed = context.value("ImageBatch", image1=first, image2=flat_image(9, 9, 0.5, 0.5, 0.5))
    assert np.array_equal(mixed[1:], flat_image(6, 4, 0.5, 0.5, 0.5))


def test_repeat_and_take_out(context: Context) -> None:
    batch = random_image(3, 2, batch=2)
    repeated = context.value("RepeatImageBatch", image=batch, amount=3)
    assert np.array_equal(repeated, np.concatenate([batch] * 3))
    middle = context.value("ImageFromBatch", image=repeated, batch_index=1, length=2)
    assert np.array_equal(middle, repeated[1:3])
    last = context.value("ImageFromBatch", image=repeated, batch_index=99, length=99)
    assert np.array_equal(last, repeated[5:])


def test_get_image_size(context: Context) -> None:
    assert context.values("GetImageSize", image=random_image(7, 5, batch=2)) == (7, 5, 2)
