"""Fixtures: a ComfyUI of the sandbox, a client of it, and servers of this program."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from comfyui_workflow.client import ComfyUI, WorkflowServer
from tests.cli.canned_server import CannedServer
from tests.sandbox.running_comfyui import RunningComfyUI
from tests.server_process import ServerProcess


@pytest.fixture
def sandbox_comfyui(tmp_path: Path) -> Iterator[RunningComfyUI]:
    with RunningComfyUI(tmp_path / "comfyui") as running:
        yield running


@pytest.fixture
def comfyui(sandbox_comfyui: RunningComfyUI) -> Iterator[ComfyUI]:
    with ComfyUI(sandbox_comfyui.url("")) as client:
        yield client


@pytest.fixture
def canned() -> Iterator[CannedServer]:
    with CannedServer() as server:
        yield server


@pytest.fixture(scope="session")
def _worker_client_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def server(_worker_client_server: ServerProcess, tmp_path: Path) -> ServerProcess:
    _worker_client_server.output_dir = tmp_path / "outputs"
    return _worker_client_server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[WorkflowServer]:
    with WorkflowServer(server.url.removesuffix("/comfyui/workflow")) as made:
        yield made
