"""Example workflows and an example picture, for the `demo` command and the documentation; the sandbox can run
them."""

from pathlib import Path

ENHANCE = Path(__file__).with_name("enhance.json")
IMAGE_TO_IMAGE = Path(__file__).with_name("image_to_image.json")
TEXT_TO_IMAGE = Path(__file__).with_name("text_to_image.json")
EXAMPLE_PICTURE = Path(__file__).with_name("example.png")
