"""Execution of the bundled workflows in the sandbox."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from comfyui_workflow import demo
from tests.sandbox_process import SandboxProcess

TIMEOUT_S = 10.0


@pytest.mark.parametrize(
    ("workflow", "size"),
    [(demo.ENHANCE, (1280, 832)), (demo.TEXT_TO_IMAGE, (512, 512)), (demo.IMAGE_TO_IMAGE, (640, 416))],
    ids=["enhance", "text_to_image", "image_to_image"],
)
def test_it_makes_a_picture(sandbox: SandboxProcess, workflow: Path, size: tuple[int, int]) -> None:
    shutil.copy(demo.EXAMPLE_PICTURE, sandbox.input_dir)
    outputs = _run(sandbox, json.loads(workflow.read_text()))
    (name,) = (image["filename"] for node in outputs.values() for image in node["images"])
    with Image.open(sandbox.output_dir / name) as picture:
        assert picture.size == size
        assert len(picture.convert("L").getcolors() or ()) > 50  # not one flat colour


def _run(sandbox: SandboxProcess, graph: dict[str, Any]) -> dict[str, Any]:
    answer = requests.post(f"{sandbox.comfyui_url}/prompt", json={"prompt": graph}, timeout=TIMEOUT_S)
    assert answer.ok, answer.text
    url = f"{sandbox.comfyui_url}/history/{answer.json()['prompt_id']}"
    deadline = time.monotonic() + 30
    while not (history := requests.get(url, timeout=TIMEOUT_S).json()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (entry,) = history.values()
    assert entry["status"]["status_str"] == "success", entry["status"]
    outputs: dict[str, Any] = entry["outputs"]
    return outputs
