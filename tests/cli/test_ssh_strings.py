"""`--ssh` as people type it: an alias of ~/.ssh/config, a key file in the current directory."""

import json
import shlex
import shutil
from pathlib import Path

import paramiko
import pytest

from comfyui_workflow import demo
from comfyui_workflow.errors import HostKeyRefused
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.ssh.known_hosts import KnownHosts
from tests.cli.canned_server import CannedServer
from tests.cli.conftest import Command
from tests.sandbox_process import SandboxProcess


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SSH configuration of the server, and of the commands."""
    file = tmp_path / "ssh_config"
    monkeypatch.setenv("COMFYUI_WORKFLOW_SSH_CONFIG", str(file))
    return file


def alias_of(sandbox: SandboxProcess, *more: str) -> str:
    address = parse_ssh_address(sandbox.ssh_string)
    lines = (f"HostName {address.host}", f"Port {address.port}", f"User {address.user}", *more)
    return "Host gpu\n" + "".join(f"    {line}\n" for line in lines)


def test_a_run_on_an_alias(command: Command, config: Path, sandbox: SandboxProcess, tmp_path: Path) -> None:
    key = parse_ssh_address(sandbox.ssh_string).key_files[0]
    config.write_text(alias_of(sandbox, f"IdentityFile {key}"))
    typed = f"ssh -o LogLevel=ERROR -L 1:localhost:{sandbox.comfyui_port} gpu"
    done = command("run", demo.TEXT_TO_IMAGE, "--ssh", typed, "--output-dir", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "LogLevel is ignored" in done.stdout + done.stderr
    assert list((tmp_path / "out").rglob("*.png"))
    records = [
        json.loads(file.read_text()) for file in (tmp_path / "data").rglob("*.json") if "run" in str(file)
    ]
    assert typed in json.dumps(records)


def test_a_key_file_starts_in_the_directory_of_the_command(
    command: Command, sandbox: SandboxProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = parse_ssh_address(sandbox.ssh_string)
    (tmp_path / "my keys").mkdir()
    shutil.copy(address.key_files[0], tmp_path / "my keys" / "key.pem")
    monkeypatch.chdir(tmp_path / "my keys")
    typed = f"ssh -i key.pem {address.label} -L 1:localhost:{sandbox.comfyui_port}".replace(
        f":{address.port} ", f" -p {address.port} "
    )
    done = command("validate", demo.TEXT_TO_IMAGE, "--ssh", typed)
    assert done.exit_code == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["run", "batch", "validate", "add"])
def test_every_command_sends_the_whole_path(
    command: Command, canned: CannedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "key.pem").write_text("a key")
    monkeypatch.chdir(tmp_path)
    canned.will_answer((200, {"success": True, "unfinished_runs": 0}))
    asked = {
        "run": ("run", demo.TEXT_TO_IMAGE),
        "batch": ("batch", demo.TEXT_TO_IMAGE, "--vary", "3.seed=1,2"),
        "validate": ("validate", demo.TEXT_TO_IMAGE),
        "add": ("instances", "add", "gpu"),
    }[name]
    command(*asked, "--ssh", "ssh -i key.pem ubuntu@gpu", "--server", canned.url)
    sent = b"".join(body for *_, body in canned.requests).decode(errors="replace")
    assert shlex.quote(str(tmp_path / "key.pem")) in sent


def test_the_host_key_of_an_alias_is_forgotten(command: Command, config: Path, tmp_path: Path) -> None:
    config.write_text("Host gpu\n  HostName 10.0.0.1\n  Port 40738\n")
    known_hosts = KnownHosts(tmp_path / "data" / "known_hosts")
    old, new = (paramiko.ECDSAKey.generate() for _ in range(2))
    known_hosts.check("10.0.0.1", 40738, old)
    with pytest.raises(HostKeyRefused):
        known_hosts.check("10.0.0.1", 40738, new)
    done = command("hosts", "forget", "gpu")
    assert (done.exit_code, done.stdout) == (0, "Forgot the host key of 10.0.0.1 port 40738.\n")
    known_hosts.check("10.0.0.1", 40738, new)
