"""The wheel: its files, its dependencies, and the page, which it serves without a checkout."""

import configparser
import email
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest
import requests
from packaging.requirements import Requirement

import comfyui_workflow
from tests.packaging.conftest import REPOSITORY

DISTRIBUTION = "comfyui-over-ssh"
TIMEOUT_S = 30


def test_it_has_the_program_the_page_and_the_demo_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"comfyui_workflow"}
    assert not any("__pycache__" in name for name in names)
    for wanted in ("py.typed", "app.py", "demo/example.png", "demo/image_to_image.json"):
        assert f"comfyui_workflow/{wanted}" in names
    for directory in ("static", "templates"):
        for file in (path for path in (REPOSITORY / directory).rglob("*") if path.is_file()):
            assert f"comfyui_workflow/web/{file.relative_to(REPOSITORY).as_posix()}" in names


def test_its_metadata(wheel: zipfile.ZipFile) -> None:
    metadata = _metadata(wheel)
    assert metadata["Name"] == DISTRIBUTION
    assert metadata["Version"] == comfyui_workflow.__version__
    assert metadata["License-Expression"] == "MIT"
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())
    wanted = {Requirement(each).name for each in metadata.get_all("Requires-Dist", [])}
    assert "flask" in wanted
    assert not wanted & {"pytest", "ruff", "mypy", "playwright"}


def test_its_command(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    entries = configparser.ConfigParser()
    entries.read_string(wheel.read(name).decode())
    assert dict(entries["console_scripts"]) == {"comfyui-workflow": "comfyui_workflow.cli:main"}


def test_requirements_txt_is_what_the_wheel_asks_for_and_pytest() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    in_file = {
        Requirement(line)
        for line in (REPOSITORY / "requirements.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    assert {each.name for each in in_file if each.name == "pytest"} == {"pytest"}
    assert {each for each in in_file if each.name != "pytest"} == set(
        map(Requirement, project["dependencies"])
    )


def test_the_version_is_known_without_an_installation() -> None:
    for path in (REPOSITORY / "comfyui_workflow").rglob("*.py"):
        assert "importlib.metadata" not in path.read_text(), f"{path} asks for an installed package"


def test_it_runs_where_nothing_else_of_ours_is(unpacked: Path, tmp_path: Path) -> None:
    code = "import comfyui_workflow.web.pages as pages; print(pages.root_directory())"
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=_environment(unpacked, tmp_path),
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
    )
    assert Path(said.stdout.strip()) == unpacked / "comfyui_workflow" / "web"


def test_it_serves_the_page_in_an_empty_directory(served: str) -> None:
    page = requests.get(f"{served}/", timeout=TIMEOUT_S)
    assert page.status_code == 200
    assert "<main" in page.text
    named = re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text)
    assert len(named) > 10
    for path in (*named, "/docs", "/docs/json", "/docs/assets/swagger-ui-bundle.js", "/static/docs.js"):
        assert requests.get(served + path, timeout=TIMEOUT_S).status_code == 200, path
    health = requests.get(f"{served}/health", timeout=TIMEOUT_S).json()
    assert health["version"] == comfyui_workflow.__version__


@pytest.fixture
def served(unpacked: Path, tmp_path: Path) -> Iterator[str]:
    """Starts a server from the wheel in an empty directory; yields its URL."""
    empty = tmp_path / "empty"
    empty.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "comfyui_workflow", "serve", "--port", "0"],
        cwd=empty,
        env=_environment(unpacked, tmp_path),
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            assert line.startswith("Serving on ")
            yield line.split()[-1]
        finally:
            server.terminate()
    assert not list(empty.iterdir())


def _environment(unpacked: Path, directory: Path) -> dict[str, str]:
    """Puts the modules of the wheel before those of the checkout, which is installed in editable mode."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("COMFYUI_WORKFLOW_")
    }
    return inherited | {
        "PYTHONPATH": str(unpacked),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COMFYUI_WORKFLOW_DATA_DIR": str(directory / "data"),
        "COMFYUI_WORKFLOW_STATE_FILE": str(directory / "state.json"),
    }


def _metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))
