"""Guarantees of the `instance` fixture: the same instance behind two SSH servers."""

import time

import paramiko
import pytest
import requests

from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from tests.instance import Instance

TIMEOUT_S = 10.0


def test_its_files_are_those_of_its_comfyui(instance: Instance) -> None:
    (instance.sandbox.output_dir / "picture").write_bytes(b"content")
    with _connected(instance) as transport, paramiko.SFTPClient.from_transport(transport) as sftp:
        assert sftp.stat(str(instance.sandbox.output_dir / "picture")).st_size == 7


def test_its_tunnel_leads_to_its_comfyui(instance: Instance) -> None:
    with _connected(instance) as transport:
        destination = ("localhost", parse_ssh_address(instance.ssh_string).comfyui_port)
        channel = transport.open_channel("direct-tcpip", destination, ("127.0.0.1", 0), timeout=TIMEOUT_S)
        channel.settimeout(TIMEOUT_S)
        channel.sendall(b"GET /queue HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert b"queue_running" in b"".join(iter(lambda: channel.recv(65536), b""))


def test_a_cut_ends_connections_and_lets_new_ones_in(instance: Instance) -> None:
    with _connected(instance) as transport:
        instance.cut()
        transport.join(TIMEOUT_S)
        assert not transport.is_active()
    with _connected(instance) as another:
        assert another.is_authenticated()


def test_refused_for_a_while(instance: Instance) -> None:
    with _connected(instance) as transport:
        started_at = time.monotonic()
        instance.refuse(0.3)
        with pytest.raises(paramiko.SSHException):
            _connected(instance)
        while not (another := _tried(instance)):
            assert time.monotonic() - started_at < TIMEOUT_S
        another.close()
        assert time.monotonic() - started_at >= 0.3
        assert transport.is_active()


def test_the_next_test_finds_it_as_new(instance: Instance) -> None:
    assert list(instance.sandbox.output_dir.iterdir()) == []
    assert instance.sandbox.executions() == []
    assert requests.get(f"{instance.sandbox.comfyui_url}/history", timeout=TIMEOUT_S).json() == {}


def _connected(instance: Instance) -> paramiko.Transport:
    address = parse_ssh_address(instance.ssh_string)
    transport = paramiko.Transport((address.host, address.port))
    transport.start_client(timeout=TIMEOUT_S)
    (key_file,) = address.key_files
    transport.auth_publickey(address.user, paramiko.Ed25519Key.from_private_key_file(key_file))
    return transport


def _tried(instance: Instance) -> paramiko.Transport | None:
    try:
        return _connected(instance)
    except paramiko.SSHException:
        return None
