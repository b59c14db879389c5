"""Runs the examples of docs/client.md unchanged, one after the other."""

import re
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from shutil import copy

import pytest

from comfyui_workflow import client, demo
from comfyui_workflow.client import Batches, ComfyUI, Monitor, WorkflowServer
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "client.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """Directory with the files that the examples use."""
    for name, file in (
        ("text_to_image.json", demo.TEXT_TO_IMAGE),
        ("enhance.json", demo.ENHANCE),
        ("photo.png", demo.EXAMPLE_PICTURE),
    ):
        copy(file, tmp_path / name)
    with chdir(tmp_path):
        yield tmp_path


def test_every_example_runs(
    sandbox: SandboxProcess, server: ServerProcess, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = {
        "http://127.0.0.1:8188": sandbox.comfyui_url,
        "http://127.0.0.1:5000": server.url.removesuffix("/comfyui/workflow"),
        "ssh -p 40738 root@198.53.64.194": sandbox.ssh_string,
    }
    names: dict[str, object] = {}
    said: list[str] = []
    for block in BLOCKS:
        for written, there in real.items():
            block = block.replace(written, there)  # noqa: PLW2901 - it is the same example
        exec(compile(block, "docs/client.md", "exec"), names)
        said.append(capsys.readouterr().out)
    first, watched, checked = said[1], said[6], said[7]
    assert "pictures/text_to_image_00001_.png" in first
    assert "enhanced_00001_.png" in said[3]
    assert "4 of 4" in said[4]
    assert "node 3: 20 of 20" in said[5]
    assert said[5].count("done ") == 1
    assert "completed 100.0" in watched
    assert list(here.glob("here too/*.png"))
    assert list(here.glob("results/*.png"))
    assert "it would run" in checked
    assert "404 run_not_found" in checked
    assert "completed enhance.json" in checked
    assert "2 of 2, 100.0 %" in said[8]
    assert "completed {'6.text': 'a town', '3.seed': 7} left" in said[8]
    assert "2 runs on all instances" in said[8]
    assert len(list(here.glob("places here/*.png"))) == 2
    assert len(list(here.glob("pictures/seed */*.png"))) == 4


@pytest.mark.parametrize(
    ("kind", "section"),
    [
        (ComfyUI, "## Client of a ComfyUI"),
        (WorkflowServer, "## Client of this server"),
        (Monitor, "### Websocket messages"),
        (Batches, "### Batches"),
    ],
)
def test_every_method_is_documented(kind: type, section: str) -> None:
    part = re.split(r"\n##? ", TEXT.partition(f"\n{section}\n")[2])[0]
    public = {name for name in vars(kind) if not name.startswith("_")}
    quiet = {"close", "connect", "disconnect", "wait_connected", "unregister_callback"}
    missing = [name for name in public - quiet if not re.search(rf"\b{name}\b", part)]
    assert missing == []


def test_everything_that_is_named_is_there() -> None:
    assert [name for name in client.__all__ if not hasattr(client, name)] == []
    assert sorted(client.__all__) == client.__all__
