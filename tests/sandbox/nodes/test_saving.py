import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comfyui_workflow.sandbox.nodes.file_names import find_save_target
from tests.sandbox.nodes.context import Context, flat_image, random_image, random_mask

NOW = time.struct_time((2026, 3, 4, 5, 6, 7, 0, 63, 0))


def _named(shown: dict[str, list[dict[str, str]]]) -> list[str]:
    return [f"{image['type']}:{image['subfolder']}/{image['filename']}" for image in shown["images"]]


def test_levels_are_cut_off_and_not_rounded(context: Context) -> None:
    image = np.array([-1, 0, 0.5, 0.999, 1, 7], np.float32).reshape(1, 1, 6, 1).repeat(3, axis=3)
    context.run("SaveImage", images=image, filename_prefix="levels")
    with Image.open(context.output_dir / "levels_00001_.png") as picture:
        assert np.asarray(picture)[0, :, 0].tolist() == [0, 0, 127, 254, 255, 255]


def test_what_was_loaded_is_saved_unchanged(context: Context) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    Image.fromarray(levels).save(context.input_dir / "all.png")
    image = context.value("LoadImage", image="all.png")
    context.run("SaveImage", images=image, filename_prefix="all")
    with Image.open(context.output_dir / "all_00001_.png") as picture:
        assert np.array_equal(np.asarray(picture), levels)


def test_files_are_numbered_on(context: Context) -> None:
    for name in ("run_00007_.png", "run_00003_.webp", "run_x_.png", "runner_00099_.png", "run"):
        (context.output_dir / name).touch()
    shown = context.shown("SaveImage", images=random_image(4, 4, batch=2), filename_prefix="run")
    assert _named(shown) == ["output:/run_00008_.png", "output:/run_00009_.png"]
    assert _named(context.shown("SaveImage", images=random_image(4, 4), filename_prefix="run")) == [
        "output:/run_00010_.png"
    ]


def test_a_prefix_may_name_subfolders_and_placeholders(context: Context) -> None:
    shown = context.shown(
        "SaveImage",
        images=random_image(6, 4, batch=2),
        filename_prefix="shots/%width%x%height%/n%batch_num%",
    )
    assert _named(shown) == ["output:shots/6x4/n0_00001_.png", "output:shots/6x4/n1_00002_.png"]
    assert (context.output_dir / "shots/6x4/n1_00002_.png").is_file()


def test_placeholders_of_time(tmp_path: Path) -> None:
    place = find_save_target(tmp_path, "%year%-%month%-%day%/%hour%%minute%%second%", now=NOW)
    assert place.subfolder == "2026-03-04"
    assert place.file_name("png") == "050607_00001_.png"


@pytest.mark.parametrize("prefix", ["../x", "a/../../x", "/tmp/x", ".."])
def test_a_prefix_that_leaves_the_folder_is_refused(context: Context, prefix: str) -> None:
    with pytest.raises(ValueError, match="outside the output folder"):
        context.run("SaveImage", images=random_image(4, 4), filename_prefix=prefix)
    assert list(context.output_dir.parent.rglob("*.png")) == []


def test_the_graph_is_inside_the_file(context: Context) -> None:
    context.prompt = {"1": {"class_type": "SaveImage", "inputs": {"text": "grün"}}}
    context.extra_pnginfo = {"workflow": {"nodes": [1]}, "job": "j-1"}
    context.run("SaveImage", images=random_image(4, 4), filename_prefix="x")
    with Image.open(context.output_dir / "x_00001_.png") as picture:
        texts = {key: json.loads(value) for key, value in picture.text.items()}
    assert texts == {"prompt": context.prompt, "workflow": {"nodes": [1]}, "job": "j-1"}
    assert list(texts) == ["prompt", "workflow", "job"]


def test_an_alpha_is_saved(context: Context) -> None:
    context.run("SaveImage", images=flat_image(4, 4, 1, 0, 0, 0.5), filename_prefix="x")
    with Image.open(context.output_dir / "x_00001_.png") as picture:
        assert picture.getpixel((0, 0)) == (255, 0, 0, 127)


def test_previews_go_to_the_temp_folder_under_a_name_of_chance(context: Context) -> None:
    names = [_named(context.shown("PreviewImage", images=random_image(4, 4)))[0] for _ in range(2)]
    assert all(re.fullmatch(r"temp:/ComfyUI_temp_[a-z]{5}_00001_\.png", name) for name in names)
    assert names[0] != names[1]
    mask = random_mask(4, 4)
    shown = context.shown("MaskPreview", mask=mask)["images"][0]
    with Image.open(context.temp_dir / shown["filename"]) as picture:
        assert np.array_equal(np.asarray(picture)[..., 2], (mask[0] * 255).astype(np.uint8))
    assert list(context.output_dir.iterdir()) == []


def test_an_animated_webp(context: Context) -> None:
    context.prompt, context.extra_pnginfo = {"1": {}}, {"workflow": {"nodes": []}, "job": 7}
    images = random_image(8, 6, batch=3)
    shown = context.shown(
        "SaveAnimatedWEBP",
        images=images,
        filename_prefix="anim/a",
        fps=8.0,
        lossless=True,
        quality=80,
        method="fastest",
    )
    assert _named(shown) == ["output:anim/a_00001_.webp"]
    assert shown["animated"] == [True]
    with Image.open(context.output_dir / "anim/a_00001_.webp") as picture:
        assert picture.n_frames == 3
        exif = picture.getexif()
        assert exif[0x0110] == 'prompt:{"1": {}}'
        assert exif[0x010F] == 'workflow:{"nodes": []}'
        assert exif[0x010E] == "job:7"
        picture.seek(2)
        assert np.array_equal(np.asarray(picture.convert("RGB")), (images[2] * 255).astype(np.uint8))
        assert picture.info["duration"] == 125


def test_a_webp_of_one_image_is_not_animated(context: Context) -> None:
    shown = context.shown(
        "SaveAnimatedWEBP",
        images=random_image(8, 6),
        filename_prefix="a",
        fps=6.0,
        lossless=False,
        quality=50,
        method="default",
    )
    assert shown["animated"] == [False]


def test_an_animated_png(context: Context) -> None:
    context.prompt = {"1": {"inputs": {"text": "grün"}}}
    images = random_image(8, 6, batch=2)
    shown = context.shown("SaveAnimatedPNG", images=images, filename_prefix="a", fps=4.0, compress_level=1)
    assert shown == {
        "images": [{"filename": "a_00001_.png", "subfolder": "", "type": "output"}],
        "animated": [True],
    }
    content = (context.output_dir / "a_00001_.png").read_bytes()
    assert b"comfprompt\0" + json.dumps(context.prompt).encode() in content
    with Image.open(context.output_dir / "a_00001_.png") as picture:
        assert picture.n_frames == 2
        assert picture.info["duration"] == 250
