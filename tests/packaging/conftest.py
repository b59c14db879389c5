"""Builds the wheel once, without a package index."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, REPOSITORY],
        check=True,
        capture_output=True,
        timeout=60,
    )
    (path,) = directory.iterdir()
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="session")
def unpacked(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Creates the same directory as `pip install --no-deps --target`, without the scripts."""
    directory = tmp_path_factory.mktemp("unpacked")
    wheel.extractall(directory)
    return directory
