from pathlib import Path

import pytest
from PIL import Image

from comfyui_workflow.sandbox.node import Interrupted
from tests.sandbox.nodes.context import Context, random_image


def test_slow_tells_each_step_and_passes_the_image_on(context: Context) -> None:
    image = random_image(4, 4)
    assert context.value("SandboxSlow", image=image, steps=3, seconds_per_step=0.0) is image
    assert context.steps == [(1, 3), (2, 3), (3, 3)]
    assert context.previews == []
    context.run("SandboxSlow", image=image, steps=2, seconds_per_step=0.0, seed=5, preview=True)
    assert [preview.size for preview in context.previews] == [(4, 4)] * 2


def test_a_long_step_lets_an_interrupt_through(context: Context) -> None:
    context.interrupt_after = 1
    with pytest.raises(Interrupted):
        context.run("SandboxSlow", image=random_image(4, 4), steps=10000, seconds_per_step=60.0)
    assert context.steps == [(0, 10000)]


def test_raise_raises(context: Context) -> None:
    with pytest.raises(RuntimeError, match=r"^no luck$"):
        context.run("SandboxRaise", image=random_image(4, 4), message="no luck")


def test_text_is_shown_and_passed_on(context: Context) -> None:
    assert context.shown("SandboxText", text="hello") == {"text": ["hello"]}
    assert context.value("SandboxText", text="hello") == "hello"


@pytest.mark.parametrize(
    ("kind", "key", "extension", "start"),
    [
        ("image", "images", "png", b"\x89PNG"),
        ("gif", "gifs", "gif", b"GIF89a"),
        ("video", "video", "mp4", b"\0\0\0\x18ftypisom"),
        ("saved video", "images", "mp4", b"\0\0\0\x18ftypisom"),
        ("audio", "audio", "flac", b"fLaC\x80\0\0\x22"),
        ("3d", "3d", "glb", b"glTF\2\0\0\0"),
    ],
)
def test_files_of_every_kind(context: Context, kind: str, key: str, extension: str, start: bytes) -> None:
    (shown,) = context.shown("SandboxFiles", kind=kind, filename_prefix="all/f")[key]
    assert shown["filename"] == f"f_00001_.{extension}"
    assert shown["subfolder"] == "all"
    assert shown["type"] == "output"
    assert _content(context.output_dir, shown).startswith(start)


def test_what_else_is_told_of_a_gif_and_of_a_video(context: Context) -> None:
    (shown,) = context.shown("SandboxFiles", kind="gif", filename_prefix="f")["gifs"]
    assert shown["format"] == "image/gif"
    with Image.open(context.output_dir / shown["filename"]) as picture:
        assert picture.n_frames == 2
    assert context.shown("SandboxFiles", kind="saved video", filename_prefix="f")["animated"] == [True]


def test_sizes_inside_the_files_are_true(context: Context) -> None:
    (glb,) = context.shown("SandboxFiles", kind="3d", filename_prefix="f")["3d"]
    content = _content(context.output_dir, glb)
    assert int.from_bytes(content[8:12], "little") == len(content)
    (flac,) = context.shown("SandboxFiles", kind="audio", filename_prefix="f")["audio"]
    content = _content(context.output_dir, flac)
    assert int.from_bytes(content[5:8], "big") == len(content) - 8
    assert int.from_bytes(content[18:21], "big") >> 4 == 44100


def _content(root: Path, shown: dict[str, str]) -> bytes:
    return (root / shown["subfolder"] / shown["filename"]).read_bytes()
