"""`--convert`: the format of output images on the command line."""

from typing import Any

import click
import pytest

from comfyui_workflow.cli.order_options import convert_option


def parsed(*arguments: str) -> Any:
    command = click.command()(convert_option(lambda convert: convert))
    return command.main(arguments, standalone_mode=False)


@pytest.mark.parametrize(
    ("typed", "conversion"),
    [
        ("webp", {"format": "webp"}),
        ("jpeg:", {"format": "jpeg"}),
        ("webp:quality=90,lossless", {"format": "webp", "options": {"quality": 90, "lossless": True}}),
        ("webp:preset=photo", {"format": "webp", "options": {"preset": "photo"}}),
        (
            "jpg:chromaSubsampling=4:4:4, mozjpeg=false",
            {"format": "jpg", "options": {"chromaSubsampling": "4:4:4", "mozjpeg": False}},
        ),
    ],
)
def test_it_is_the_format_and_its_options(typed: str, conversion: Any) -> None:
    assert parsed("--convert", typed) == conversion


@pytest.mark.parametrize("typed", ["png", "webp:quality=101", "webp:quality=high", "jpeg:lossless", "jpg:=1"])
def test_what_cannot_be_honoured_is_refused(typed: str) -> None:
    with pytest.raises(click.BadParameter):
        parsed("--convert", typed)


def test_without_it_images_stay_as_they_are() -> None:
    assert parsed() is None
