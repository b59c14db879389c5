"""Tests of third-party ComfyUI clients, unmodified, at a local port; tests/install_foreign_clients.sh
installs them."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.foreign_client import run_client
from tests.proxy.setting import Setting

SCRIPTS = Path(__file__).parent / "foreign_clients"
WORKFLOW = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "?"}, "_meta": {"title": "Load Image"}},
    "2": {
        "class_type": "SaveImage",
        "inputs": {"images": ["1", 0], "filename_prefix": "foreign"},
        "_meta": {"title": "Save Image"},
    },
}


@pytest.mark.parametrize(
    ("script", "prefix"),
    [("simplified.py", "foreign"), ("saintno.mjs", "foreign"), ("stable_canvas.mjs", "stable_canvas")],
)
def test_a_client_that_others_wrote(setting: Setting, tmp_path: Path, script: str, prefix: str) -> None:
    picture, workflow = tmp_path / "picture.png", tmp_path / "workflow.json"
    Image.effect_noise((64, 64), 50).save(picture)
    workflow.write_text(json.dumps(WORKFLOW))
    libraries = "python" if script.endswith(".py") else "javascript"
    url = f"http://127.0.0.1:{setting.port}"
    said = run_client(SCRIPTS / script, libraries, url, str(workflow), str(picture), tmp_path=tmp_path)
    made = setting.comfyui.folders.output_dir / f"{prefix}_00001_.png"
    assert said["images"] == {made.name: made.stat().st_size}
    assert setting.comfyui.get("/queue").json() == {"queue_running": [], "queue_pending": []}
    assert len(setting.comfyui.executions()) == 2, "begun and ended, once"
