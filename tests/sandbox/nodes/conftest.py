from pathlib import Path

import pytest

from tests.sandbox.nodes.context import Context


@pytest.fixture
def context(tmp_path: Path) -> Context:
    folders = [tmp_path / name for name in ("input", "output", "temp")]
    for folder in folders:
        folder.mkdir()
    return Context(input_dir=folders[0], output_dir=folders[1], temp_dir=folders[2])
