"""Clients that others wrote for ComfyUI, as they are, on a local port: tests/install_foreign_clients.sh."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.local_port.setting import Setting

SCRIPTS = Path(__file__).parent / "foreign_clients"
INSTALLED = Path(sys.prefix) / "foreign_clients"
LIMIT_S = 60.0
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
    said = run(script, f"http://127.0.0.1:{setting.port}", str(workflow), str(picture), tmp_path=tmp_path)
    made = setting.comfyui.folders.output_dir / f"{prefix}_00001_.png"
    assert said["images"] == {made.name: made.stat().st_size}
    assert setting.comfyui.get("/queue").json() == {"queue_running": [], "queue_pending": []}
    assert len(setting.comfyui.executions()) == 2, "begun and ended, once"


def run(script: str, *arguments: str, tmp_path: Path) -> dict[str, Any]:
    """Beside its libraries, as node wants it; and with nothing of ours to import."""
    is_python = script.endswith(".py")
    libraries = INSTALLED / ("python" if is_python else "javascript")
    if not (libraries / ".pinned").exists():
        pytest.skip(f"{libraries} is not there: tests/install_foreign_clients.sh could not install it")
    copied = Path(shutil.copy(SCRIPTS / script, tmp_path))
    if not is_python:
        (tmp_path / "node_modules").symlink_to(libraries / "node_modules")
    command = [sys.executable, "-S", "-P"] if is_python else ["node"]
    done = subprocess.run(
        [*command, str(copied), *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(libraries), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))
