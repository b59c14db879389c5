from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.running_comfyui import RunningComfyUI


@pytest.fixture
def comfyui(tmp_path: Path) -> Iterator[RunningComfyUI]:
    """A fresh sandbox ComfyUI, with the nodes of the recordings."""
    with RunningComfyUI(tmp_path) as running:
        yield running
