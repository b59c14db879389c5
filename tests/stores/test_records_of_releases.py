"""Records of earlier releases are read, and the API returns the same for them as then.

records/<name>/data            a data directory: runs that have finished, failed, were cancelled, that execute
                               and wait; batches, jobs, webhooks, instances, usage, host keys, uploads
records/<name>/answers.json    what that release answered, by path, without what grows with the time
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from comfyui_workflow.app import Server, create_server
from comfyui_workflow.settings import load_settings

RECORDS = Path(__file__).parent / "records"
RELEASES = sorted(path.name for path in RECORDS.iterdir())
WRITTEN_IN = "/srv/comfyui/data"
"""Path of the data directory at that time."""


def opened(directory: Path) -> Server:
    """Reads the records as a start does, but resumes no run, and sends and removes nothing."""
    server = create_server(load_settings(data_dir=directory / "data", state_file=directory / "state.json"))
    server.open()
    instances = server.parts.instances
    instances.monitors.load({each.id: each for each in instances.directory.all()})
    return server


def answer(client: FlaskClient, path: str, data_dir: Path) -> Any:
    found = client.get(path, headers={"Authorization": "Bearer any"})
    return {"status": found.status_code, "body": json.loads(found.text.replace(str(data_dir), WRITTEN_IN))}


def differences(told: Any, now: Any, where: str = "") -> list[str]:
    """Returns the differences between the two responses. New members are ignored."""
    if isinstance(told, dict) and isinstance(now, dict):
        lost = [f"{where}.{name} is lost" for name in told.keys() - now.keys()]
        shared = told.keys() & now.keys()
        return lost + [
            each for name in shared for each in differences(told[name], now[name], f"{where}.{name}")
        ]
    if isinstance(told, list) and isinstance(now, list) and len(told) == len(now):
        pairs = enumerate(zip(told, now, strict=True))
        return [each for n, (then, here) in pairs for each in differences(then, here, f"{where}[{n}]")]
    return [] if told == now else [f"{where} was {told!r} and is {now!r}"]


@pytest.mark.parametrize("release", RELEASES)
def test_the_api_tells_what_it_told_when_they_were_written(tmp_path: Path, release: str) -> None:
    shutil.copytree(RECORDS / release / "data", tmp_path / "data")
    told = json.loads((RECORDS / release / "answers.json").read_text())
    for _ in range(2):  # the second time of what the first start has written anew
        server = opened(tmp_path)
        client = server.app.test_client()
        now = {path: answer(client, path, tmp_path / "data") for path in told}
        server.stop()
        assert server.parts.damage.all() == []
        assert not list((tmp_path / "data").glob("**/set-aside/*"))
        assert differences(told, now) == []
