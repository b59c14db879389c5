"""The process `python -m comfyui_workflow.sandbox`: its output, its end, its stored files."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest
import requests

from comfyui_workflow import demo
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from tests.sandbox_process import SandboxProcess


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[SandboxProcess]:
    """A sandbox that a test can stop. Its path has a space, as some home directories have."""
    with SandboxProcess(tmp_path / "my sandbox") as sandbox:
        yield sandbox


def test_the_first_line_is_the_way_in(fresh: SandboxProcess) -> None:
    address = parse_ssh_address(fresh.ssh_string)
    assert (address.user, address.host, address.port) == ("sandbox", "127.0.0.1", fresh.ssh_port)
    assert address.comfyui_port == fresh.comfyui_port
    assert address.key_files == (str(fresh.layout.client_key_path),)
    socket.create_connection(("127.0.0.1", fresh.ssh_port), timeout=5).close()
    assert requests.get(f"{fresh.comfyui_url}/system_stats", timeout=5).ok


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_clean_amid_work(fresh: SandboxProcess, number: signal.Signals) -> None:
    fresh.faults(step_delay_s=60)
    graph = json.loads(demo.TEXT_TO_IMAGE.read_text())
    requests.post(f"{fresh.comfyui_url}/prompt", json={"prompt": graph}, timeout=5).raise_for_status()
    _wait_until(lambda: len(fresh.executions()) == 1)
    with _connected(fresh) as transport:
        transport.open_channel("direct-tcpip", ("localhost", fresh.comfyui_port), ("", 0), timeout=5)
        asked_at = time.monotonic()
        os.kill(fresh.pid, number)
        assert fresh.wait() == 0
        assert time.monotonic() - asked_at < 2
    assert "Traceback" not in fresh.errors()


def test_it_is_the_same_machine_after_a_restart(fresh: SandboxProcess) -> None:
    before, host_key, client_key = (
        fresh.ssh_string,
        _host_key(fresh),
        fresh.layout.client_key_path.read_bytes(),
    )
    fresh.restart()
    assert fresh.ssh_string == before
    assert _host_key(fresh) == host_key
    assert fresh.layout.client_key_path.read_bytes() == client_key


@pytest.mark.parametrize("taken", ["--ssh-port", "--comfyui-port"])
def test_a_port_in_use_is_a_sentence(tmp_path: Path, taken: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        ports = {"--ssh-port": "0", "--comfyui-port": "0", taken: port}
        command = [sys.executable, "-m", "comfyui_workflow.sandbox", "--root", str(tmp_path)]
        command += [word for option in ports.items() for word in option]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert f"port {port} of 127.0.0.1 cannot be used: Address already in use." in ended.stderr
    assert "Traceback" not in ended.stderr and ended.stdout == ""


@pytest.mark.parametrize("is_frozen", [False, True])
def test_it_ends_when_its_parent_is_killed(tmp_path: Path, is_frozen: bool) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tests.sandbox_process import SandboxProcess\n"
        f"sandbox = SandboxProcess(Path({str(tmp_path)!r})); sandbox.start()\n"
        f"{is_frozen} and sandbox.freeze()\n"
        "print(sandbox.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    _wait_until(lambda: not _is_alive(pid))


def test_a_frozen_machine_answers_again_when_thawed(fresh: SandboxProcess) -> None:
    fresh.freeze()
    with pytest.raises(requests.Timeout):
        requests.get(f"{fresh.comfyui_url}/queue", timeout=(5, 0.3))
    fresh.thaw()
    assert requests.get(f"{fresh.comfyui_url}/queue", timeout=5).ok


@pytest.mark.parametrize("leave", ["killed", "frozen", "comfyui down"])
def test_a_reset_brings_it_back(fresh: SandboxProcess, leave: str) -> None:
    match leave:
        case "killed":
            fresh.kill()
        case "frozen":
            fresh.freeze()
        case _:
            fresh.faults(restart={"down_s": 60})
    fresh.reset()
    assert requests.get(f"{fresh.comfyui_url}/queue", timeout=5).ok


def _host_key(sandbox: SandboxProcess) -> str:
    with _connected(sandbox) as transport:
        return transport.get_remote_server_key().get_base64()


def _connected(sandbox: SandboxProcess) -> paramiko.Transport:
    transport = paramiko.Transport(("127.0.0.1", sandbox.ssh_port))
    transport.start_client(timeout=10)
    key = paramiko.Ed25519Key.from_private_key_file(str(sandbox.layout.client_key_path))
    transport.auth_publickey("sandbox", key)
    return transport


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _wait_until(is_so: Callable[[], bool], *, limit_s: float = 10) -> None:
    deadline = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_it_imitates_the_version_that_is_asked_for(tmp_path: Path) -> None:
    with SandboxProcess(tmp_path, options=("--comfyui-version", "0.3.64")) as sandbox:
        system = requests.get(f"{sandbox.comfyui_url}/system_stats", timeout=5).json()["system"]
        assert system["comfyui_version"] == "0.3.64"
        assert requests.get(f"{sandbox.comfyui_url}/api/jobs", timeout=5).status_code == 404
