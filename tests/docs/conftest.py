"""The environment of a new user for documentation tests: a home directory, the commands and a running server.
Sandboxes replace rented machines.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copy

import pytest
import requests

from comfyui_workflow import demo
from tests.docs.forked_command import ForkedCommand
from tests.docs.pages import ROOT
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess

LIMIT_S = 100
LATEST = """#!/bin/sh
# Prints the id of the latest batch; a user copies it from the output of the previous command.
exec curl -s $COMFYUI_WORKFLOW_SERVER_URL/comfyui/workflow/batch?limit=1 | jq -r .batches[0].batch_id
"""
VIDEO_GRAPH = (
    '{"1": {"class_type": "SandboxFiles", "inputs": {"kind": "video", "filename_prefix": "my-video"}}}'
)
MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(64)


class Desk:
    """Runs scripts like a user who follows a page. `values` are the values for the placeholders in
    STAND_INS."""

    def __init__(self, here: Path, home: Path, server: ServerProcess, values: dict[str, str]) -> None:
        self.here = here
        self.values = values
        self._home = home
        self._bin = home / "bin"
        self._server = server

    def run(self, script: str) -> "subprocess.CompletedProcess[str]":
        """Runs the script in a shell that stops at the first failed command."""
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.here,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        ending = threading.Timer(LIMIT_S, os.killpg, (process.pid, 9))
        ending.start()
        stdout, stderr = process.communicate()
        ending.cancel()
        return subprocess.CompletedProcess(script, process.returncode, stdout, stderr)

    def _environment(self) -> dict[str, str]:
        others = {name: value for name, value in os.environ.items() if "COMFYUI_WORKFLOW" not in name}
        python = Path(sys.executable).parent
        return others | {
            "HOME": str(self._home),
            "PATH": f"{self._bin}:{python}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COMFYUI_WORKFLOW_SERVER_URL": self.values["server"],
        }


@pytest.fixture(scope="package")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    (home / "bin").mkdir()
    (home / "bin" / "latest").write_text(LATEST)
    (home / "bin" / "latest").chmod(0o755)
    with ForkedCommand(home / "bin"):
        yield home


@pytest.fixture(scope="package")
def _server(_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    data_dir = _home / ".local" / "share" / "comfyui-workflow"
    directory = tmp_path_factory.mktemp("server")
    with ServerProcess(directory, data_dir=data_dir, output_dir=directory / "outputs") as server:
        yield server


@pytest.fixture(scope="package")
def _other_machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[SandboxProcess]]:
    """Additional sandboxes, created if a page needs several machines."""
    made = [SandboxProcess(tmp_path_factory.mktemp("machine")) for _ in range(2)]
    try:
        for machine in made:
            machine.start()
        yield made
    finally:
        for machine in made:
            machine.close()


@pytest.fixture
def desk(
    _home: Path, _server: ServerProcess, sandbox: SandboxProcess, tmp_path: Path
) -> Iterator[Callable[[list[SandboxProcess]], Desk]]:
    """Creates a desk with these machines. Afterwards all runs are cancelled and all named instances are
    removed."""
    server = _server.url.removesuffix("/comfyui/workflow")
    _make_files(tmp_path)

    def make(others: list[SandboxProcess]) -> Desk:
        left, middle, right = [each.ssh_string for each in (sandbox, *others, sandbox, sandbox)[:3]]
        values = {"left": left, "middle": middle, "right": right, "server": server}
        values |= {"here": str(tmp_path), "demo": str(demo.ENHANCE.parent), "repository": str(ROOT)}
        return Desk(tmp_path, _home, _server, values | {"free_port": str(_free_port())})

    yield make
    now = _server.get("/now")
    for run in now["executing"] + now["waiting"]:
        _server.post(f"/{run['workflow_id']}/cancel")
        _server.until_finished(run["workflow_id"])
    for instance in requests.get(f"{server}/comfyui/instances", timeout=10).json()["instances"]:
        requests.delete(f"{server}/comfyui/instances/{instance['id']}", timeout=10).raise_for_status()


@pytest.fixture
def other_machines(request: pytest.FixtureRequest) -> Callable[[], list[SandboxProcess]]:
    """Returns the additional sandboxes; they are started at the first call in a worker process."""

    def start() -> list[SandboxProcess]:
        machines: list[SandboxProcess] = request.getfixturevalue("_other_machines")
        return machines

    return start


def _make_files(here: Path) -> None:
    """Creates the files that the pages use."""
    for name, file in (
        ("cat.json", demo.TEXT_TO_IMAGE),
        ("my-workflow.json", demo.TEXT_TO_IMAGE),
        ("enhance.json", demo.ENHANCE),
        ("photo.png", demo.EXAMPLE_PICTURE),
    ):
        copy(file, here / name)
    (here / "my-video.json").write_text(VIDEO_GRAPH)
    (here / "clip.mp4").write_bytes(MP4)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
