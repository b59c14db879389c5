from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.running_comfyui import RunningComfyUI


@pytest.fixture
def comfyui(tmp_path: Path) -> Iterator[RunningComfyUI]:
    """A fresh sandbox ComfyUI, with the nodes of the recordings."""
    with RunningComfyUI(tmp_path) as running:
        yield running


@pytest.fixture
def without_previews(tmp_path: Path) -> Iterator[RunningComfyUI]:
    """The same with ComfyUI's own default for previews: none."""
    with RunningComfyUI(tmp_path, preview_method="none") as running:
        yield running
