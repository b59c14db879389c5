"""A machine behind a real sshd, and a web server with files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from comfyui_workflow.app import open_session
from comfyui_workflow.errors import ComfyUIError
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey
from comfyui_workflow.settings import Settings
from comfyui_workflow.ssh.connection import Connection, ConnectionOptions, open_connection
from comfyui_workflow.ssh.known_hosts import KnownHosts
from tests.provisioning.file_server import FileServer, wait_until
from tests.provisioning.machine import Machine
from tests.sshd import Sshd


@pytest.fixture
def web() -> Iterator[FileServer]:
    with FileServer().running() as web:
        yield web


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    server = Sshd(tmp_path / "sshd")
    server.start_shells_in(tmp_path / "home")
    with server:
        yield server


@pytest.fixture
def options(tmp_path: Path) -> ConnectionOptions:
    return ConnectionOptions(known_hosts=KnownHosts(tmp_path / "known_hosts"), key_directory=None)


@pytest.fixture
def connection(sshd: Sshd, options: ConnectionOptions) -> Iterator[Connection]:
    opened = open_connection(parse_ssh_address(sshd.ssh_string()), 8188, options)
    yield opened
    opened.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "ComfyUI")
    machine.start()
    yield machine
    machine.close()


@pytest.fixture
def session(machine: Machine, sshd: Sshd, tmp_path: Path) -> Iterator[ComfyUISession]:
    (tmp_path / "data").mkdir()
    settings = Settings(data_dir=tmp_path / "data", ssh_config=Path("/dev/null"))
    key = InstanceKey(address=parse_ssh_address(sshd.ssh_string()), comfyui_port=machine.port, is_exact=True)
    opened = open_session(key, settings)

    def answers() -> bool:
        try:
            return opened.reach()
        except ComfyUIError:
            return False

    wait_until(answers)
    yield opened
    opened.close()
