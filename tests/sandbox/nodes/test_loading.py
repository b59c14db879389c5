import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comfyui_workflow.sandbox.nodes.loading import LoadImage, LoadImageMask
from tests.sandbox.nodes.context import Context


def _picture(width: int, height: int, mode: str = "RGB", seed: int = 3) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    return Image.fromarray(levels)


def test_an_image_without_alpha_comes_with_an_empty_mask(context: Context) -> None:
    picture = _picture(6, 4)
    picture.save(context.input_dir / "a.png")
    image, mask = context.values("LoadImage", image="a.png")
    assert image.dtype == np.float32
    assert np.array_equal(image[0], np.asarray(picture).astype(np.float32) / 255)
    assert mask.shape == (1, 64, 64)
    assert not mask.any()


def test_the_mask_is_the_opposite_of_alpha(context: Context) -> None:
    picture = _picture(6, 4, "RGBA")
    picture.save(context.input_dir / "a.png")
    image, mask = context.values("LoadImage", image="a.png")
    assert np.array_equal(image[0], np.asarray(picture)[..., :3].astype(np.float32) / 255)
    assert np.array_equal(mask[0], 1 - np.asarray(picture)[..., 3].astype(np.float32) / 255)


def test_a_palette_may_be_transparent(context: Context) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putdata([0, 1])
    picture.save(context.input_dir / "p.png", transparency=1)
    image, mask = context.values("LoadImage", image="p.png")
    assert image[0, 0].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert mask.tolist() == [[[0, 1]]]


def test_frames_become_a_batch(context: Context) -> None:
    first, second, third = (_picture(6, 4, seed=seed) for seed in range(3))
    first.save(context.input_dir / "a.webp", save_all=True, append_images=[second, third], lossless=True)
    image, mask = context.values("LoadImage", image="a.webp")
    expected = np.stack([np.asarray(picture) for picture in (first, second, third)])
    assert np.array_equal(image, expected.astype(np.float32) / 255)
    assert len(mask) == 3


def test_a_picture_taken_upright_is_upright(context: Context) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    picture = _picture(6, 4)
    picture.save(context.input_dir / "a.png", exif=exif)
    turned = np.rot90(np.asarray(picture), -1).astype(np.float32) / 255
    assert np.array_equal(context.value("LoadImage", image="a.png")[0], turned)
    mask = context.value("LoadImageMask", image="a.png", channel="red")
    assert np.array_equal(mask[0], turned[..., 0])


def test_sixteen_bits_become_eight(context: Context) -> None:
    Image.fromarray(np.array([[0, 255 * 128, 255 * 255]], np.int32)).save(context.input_dir / "a.tiff")
    image = context.value("LoadImage", image="a.tiff")
    assert image[0, 0, :, 0].tolist() == [0, np.float32(128 / 255), 1]


def test_one_channel_as_a_mask(context: Context) -> None:
    picture = _picture(6, 4, "RGBA")
    picture.save(context.input_dir / "a.png")
    channels = np.asarray(picture).astype(np.float32) / 255
    for index, channel in enumerate(["red", "green", "blue"]):
        mask = context.value("LoadImageMask", image="a.png", channel=channel)
        assert np.array_equal(mask[0], channels[..., index])
    assert np.array_equal(
        context.value("LoadImageMask", image="a.png", channel="alpha")[0], 1 - channels[..., 3]
    )


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("sub/a.png", "input"),
        ("sub/a.png [input]", "input"),
        ("a.png [output]", "output"),
        ("a.png [temp]", "temp"),
    ],
)
def test_names_may_say_the_folder(context: Context, tmp_path: Path, name: str, folder: str) -> None:
    path = tmp_path / folder / name.split(" ", maxsplit=1)[0]
    path.parent.mkdir(exist_ok=True)
    _picture(5, 3).save(path)
    assert LoadImage.validate_inputs(context.folders, image=name) is True
    assert context.value("LoadImage", image=name).shape == (1, 3, 5, 3)
    assert context.value("LoadImageOutput", image=name).shape == (1, 3, 5, 3)


@pytest.mark.parametrize(
    "name", ["none.png", "../secret.png", "sub/../../secret.png", "../secret.png [output]", ""]
)
def test_what_is_missing_or_outside_is_refused(context: Context, tmp_path: Path, name: str) -> None:
    _picture(5, 3).save(tmp_path / "secret.png")
    (context.input_dir / "sub").mkdir()
    for node_class in (LoadImage, LoadImageMask):
        assert node_class.validate_inputs(context.folders, image=name) == f"Invalid image file: {name}"
    with pytest.raises(FileNotFoundError, match="no image"):
        context.run("LoadImage", image=name)


def test_an_absolute_path_is_refused(context: Context, tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    _picture(5, 3).save(path)
    assert LoadImage.validate_inputs(context.folders, image=str(path)) is not True


def test_the_lists_show_what_is_in_the_input_folder(context: Context) -> None:
    for name in ("b.png", "a.webp", "movie.mp4", "notes"):
        (context.input_dir / name).touch()
    (context.input_dir / "sub.png").mkdir()
    assert LoadImage.input_types(context.folders)["required"]["image"][0] == ["a.webp", "b.png"]
    all_files = ["a.webp", "b.png", "movie.mp4", "notes"]
    assert LoadImageMask.input_types(context.folders)["required"]["image"][0] == all_files


def test_other_content_is_a_change(context: Context) -> None:
    path = context.input_dir / "a.png"
    marks = []
    for seed in (1, 1, 2):
        _picture(5, 3, seed=seed).save(path)
        marks.append(LoadImage.is_changed(context.folders, image="a.png"))
    assert marks[0] == marks[1] != marks[2]
    missing = LoadImage.is_changed(context.folders, image="none.png")
    assert isinstance(missing, float)
    assert math.isnan(missing)
