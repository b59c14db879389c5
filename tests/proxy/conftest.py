from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proxy.setting import Setting, local_port
from tests.sandbox.running_comfyui import RunningComfyUI


@pytest.fixture
def comfyui(tmp_path: Path) -> Iterator[RunningComfyUI]:
    with RunningComfyUI(tmp_path) as running:
        yield running


@pytest.fixture
def setting(comfyui: RunningComfyUI) -> Iterator[Setting]:
    """Port 0 selects a free port; the session is leased at the first request."""
    with local_port(comfyui) as made:
        yield made
