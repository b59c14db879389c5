"""The sandbox's SSH server with paramiko as the client: authentication, files and port forwarding."""

import io
import stat
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
import requests

from tests.sandbox_process import SandboxProcess

TIMEOUT_S = 10.0


@pytest.fixture
def transport(sandbox: SandboxProcess) -> Iterator[paramiko.Transport]:
    with _transport(sandbox) as opened:
        opened.auth_publickey("sandbox", _client_key(sandbox))
        yield opened


@pytest.fixture
def sftp(transport: paramiko.Transport) -> Iterator[paramiko.SFTPClient]:
    with paramiko.SFTPClient.from_transport(transport) as opened:
        opened.get_channel().settimeout(TIMEOUT_S)
        yield opened


def test_its_own_key_is_let_in(transport: paramiko.Transport) -> None:
    assert transport.is_authenticated()


def test_another_key_is_refused(sandbox: SandboxProcess) -> None:
    with _transport(sandbox) as transport, pytest.raises(paramiko.AuthenticationException):
        transport.auth_publickey("sandbox", paramiko.RSAKey.generate(2048))


def test_another_user_is_refused(sandbox: SandboxProcess) -> None:
    with _transport(sandbox) as transport, pytest.raises(paramiko.AuthenticationException):
        transport.auth_publickey("root", _client_key(sandbox))


def test_keys_are_the_only_way_in(sandbox: SandboxProcess) -> None:
    with _transport(sandbox) as transport, pytest.raises(paramiko.BadAuthenticationType) as refused:
        transport.auth_password("sandbox", "sandbox")
    assert refused.value.allowed_types == ["publickey"]


def test_private_keys_are_private(sandbox: SandboxProcess) -> None:
    for name in ("host_key", "client_key"):
        assert stat.S_IMODE((sandbox.layout.ssh_dir / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("spelling", ["/workspace/ComfyUI/input", "{root}/workspace/ComfyUI/input"])
def test_a_file_goes_up_and_comes_down(
    sandbox: SandboxProcess, sftp: paramiko.SFTPClient, tmp_path: Path, spelling: str
) -> None:
    content = bytes(range(256)) * 4000
    path = f"{spelling.format(root=sandbox.root)}/füße 1.bin"
    sftp.putfo(io.BytesIO(content), path)
    assert (sandbox.input_dir / "füße 1.bin").read_bytes() == content
    sftp.get(path, str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content
    sftp.remove(path)
    with pytest.raises(FileNotFoundError):
        sftp.stat(path)


def test_both_spellings_are_the_same_place(sandbox: SandboxProcess, sftp: paramiko.SFTPClient) -> None:
    assert sftp.normalize("/workspace/ComfyUI") == str(sandbox.root / "workspace" / "ComfyUI")
    assert sftp.normalize(".") == str(sandbox.root)
    assert {"input", "output", "temp"} <= set(sftp.listdir("/workspace/ComfyUI"))
    assert "workspace" in sftp.listdir(".")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/etc/passwd",
        "/workspace2",
        "/workspace/../../x",
        "../x",
        "{root}/../x",
        "{root}/ssh",
        "ssh/host_key",
    ],
)
def test_nothing_else_can_be_reached(sandbox: SandboxProcess, sftp: paramiko.SFTPClient, path: str) -> None:
    named = path.format(root=sandbox.root)
    for attempt in (sftp.stat, sftp.lstat, sftp.listdir, sftp.open, sftp.normalize, sftp.mkdir, sftp.remove):
        with pytest.raises(PermissionError):
            attempt(named)
    with pytest.raises(PermissionError):
        sftp.open(named, "w")


def test_links_lead_nowhere_outside(
    sandbox: SandboxProcess, sftp: paramiko.SFTPClient, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    (sandbox.input_dir / "door").symlink_to(tmp_path)
    (sandbox.input_dir / "unborn").symlink_to(tmp_path / "unborn")
    for path in ("input/door", "input/door/secret", "input/unborn"):
        with pytest.raises(PermissionError):
            sftp.open(f"/workspace/ComfyUI/{path}", "w")
    with pytest.raises(PermissionError):
        sftp.symlink(str(tmp_path), "/workspace/ComfyUI/input/another")
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]


def test_a_link_inside_is_followed_and_removed_as_a_link(
    sandbox: SandboxProcess, sftp: paramiko.SFTPClient
) -> None:
    (sandbox.input_dir / "file").write_bytes(b"content")
    sftp.symlink("/workspace/ComfyUI/input/file", "/workspace/ComfyUI/input/link")
    assert sftp.stat("/workspace/ComfyUI/input/link").st_size == 7
    sftp.remove("/workspace/ComfyUI/input/link")
    assert [file.name for file in sandbox.input_dir.iterdir()] == ["file"]


def test_rename_never_overwrites_and_posix_rename_does(
    sandbox: SandboxProcess, sftp: paramiko.SFTPClient
) -> None:
    (sandbox.output_dir / "new").write_bytes(b"new")
    (sandbox.output_dir / "old").write_bytes(b"old")
    new, old = "/workspace/ComfyUI/output/new", "/workspace/ComfyUI/output/old"
    with pytest.raises(OSError, match="exists"):
        sftp.rename(new, old)
    assert (sandbox.output_dir / "old").read_bytes() == b"old"
    sftp.posix_rename(new, old)
    assert [file.read_bytes() for file in sandbox.output_dir.iterdir()] == [b"new"]
    sftp.rename(old, f"{old}er")
    assert [file.name for file in sandbox.output_dir.iterdir()] == ["older"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_a_tunnel_leads_to_comfyui(sandbox: SandboxProcess, transport: paramiko.Transport, host: str) -> None:
    channel = _tunnel(transport, host, sandbox.comfyui_port)
    channel.settimeout(TIMEOUT_S)
    channel.sendall(b"GET /system_stats HTTP/1.0\r\nHost: localhost\r\n\r\n")
    answer = b"".join(iter(lambda: channel.recv(65536), b""))
    assert b" 200 OK" in answer and b"comfyui_version" in answer


def test_a_tunnel_leads_nowhere_else(sandbox: SandboxProcess, transport: paramiko.Transport) -> None:
    elsewhere = [("localhost", sandbox.ssh_port), ("10.0.0.1", sandbox.comfyui_port), ("localhost", 22)]
    for host, port in elsewhere:
        with pytest.raises(paramiko.ChannelException) as refused:
            _tunnel(transport, host, port)
        assert refused.value.code == 1  # administratively prohibited
    with pytest.raises(paramiko.SSHException):
        transport.request_port_forward("127.0.0.1", 0)


def test_there_is_no_shell(transport: paramiko.Transport) -> None:
    with transport.open_session(timeout=TIMEOUT_S) as channel:
        channel.settimeout(TIMEOUT_S)
        channel.exec_command("id")
        assert "no shell" in channel.makefile_stderr().read().decode()
        assert channel.recv_exit_status() == 1


def test_connections_can_be_cut(sandbox: SandboxProcess, transport: paramiko.Transport) -> None:
    sandbox.faults(cut_ssh=True)
    transport.join(TIMEOUT_S)
    assert not transport.is_active()
    with _transport(sandbox) as another:
        assert another.is_active()


def test_new_connections_can_be_refused(sandbox: SandboxProcess, sftp: paramiko.SFTPClient) -> None:
    sandbox.faults(refuse_ssh_s=60)
    with pytest.raises(paramiko.SSHException):
        _transport(sandbox)
    assert sftp.stat("/workspace")
    sandbox.reset()
    with _transport(sandbox) as another:
        assert another.is_active()


def test_connections_can_be_frozen(sandbox: SandboxProcess, sftp: paramiko.SFTPClient) -> None:
    sandbox.faults(freeze_ssh_s=60)
    sftp.get_channel().settimeout(0.3)
    with pytest.raises(TimeoutError):
        sftp.stat("/workspace")
    assert requests.get(f"{sandbox.comfyui_url}/system_stats", timeout=TIMEOUT_S).ok
    with _transport(sandbox) as another:
        assert another.is_active()


def _transport(sandbox: SandboxProcess) -> paramiko.Transport:
    transport = paramiko.Transport(("127.0.0.1", sandbox.ssh_port))
    transport.start_client(timeout=TIMEOUT_S)
    return transport


def _client_key(sandbox: SandboxProcess) -> paramiko.PKey:
    return paramiko.Ed25519Key.from_private_key_file(str(sandbox.layout.client_key_path))


def _tunnel(transport: paramiko.Transport, host: str, port: int) -> paramiko.Channel:
    return transport.open_channel("direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=TIMEOUT_S)
