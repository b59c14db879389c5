"""The stream under a transport: when TCP_QUICKACK is set."""

import socket
from collections.abc import Iterator
from contextlib import closing

import paramiko
import pytest

from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.ssh import transport_socket as wire_module
from comfyui_workflow.ssh.connection import ConnectionOptions, open_connection
from comfyui_workflow.ssh.transport_socket import TransportSocket, wire_over_socket
from tests.ssh.conftest import TinyWeb, wait_until
from tests.sshd import Sshd

linux_only = pytest.mark.skipif(wire_module.TCP_QUICKACK is None, reason="only Linux acknowledges on request")


class RecordingSocket(socket.socket):
    asked = 0

    def setsockopt(self, level: int, name: int, value: int) -> None:  # type: ignore[override]
        self.asked += (level, name, value) == (socket.IPPROTO_TCP, wire_module.TCP_QUICKACK, 1)
        super().setsockopt(level, name, value)


@pytest.fixture
def ends() -> Iterator[tuple[RecordingSocket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server, RecordingSocket(socket.AF_INET) as near:
        near.connect(server.getsockname())
        far, _ = server.accept()
        with far:
            yield near, far


@linux_only
def test_every_packet_is_acknowledged_at_once_until_a_session_runs(
    ends: tuple[RecordingSocket, socket.socket],
) -> None:
    near, far = ends
    wire = wire_over_socket(near)
    for expected in (1, 2):
        far.sendall(b"x")
        assert (wire.recv(10), near.asked) == (b"x", expected)
    wire.uses_quick_ack = False
    far.sendall(b"x")
    assert (wire.recv(10), near.asked) == (b"x", 2)


def test_a_system_that_knows_no_such_request_reads_all_the_same(
    ends: tuple[RecordingSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_module, "TCP_QUICKACK", None)
    near, far = ends
    far.sendall(b"x")
    assert (wire_over_socket(near).recv(10), near.asked) == (b"x", 0)


def test_a_closed_stream_says_so_in_the_words_of_reading(
    ends: tuple[RecordingSocket, socket.socket],
) -> None:
    wire = wire_over_socket(ends[0])
    wire.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        wire.recv(10)


def test_a_connection_turns_it_off_with_its_first_session_and_leaves_the_jump_hosts_on(
    server: Sshd, web: TinyWeb, options: ConnectionOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The jump host has no session, so its sshd still delays small packets."""
    wires: list[TransportSocket] = []
    original = TransportSocket.__init__

    def remember(wire: TransportSocket, *arguments: object, **named: object) -> None:
        original(wire, *arguments, **named)  # type: ignore[arg-type]
        wires.append(wire)

    monkeypatch.setattr(TransportSocket, "__init__", remember)
    jump_host = f"{server.user}@{server.host}:{server.port}"
    address = parse_ssh_address(f"{server.ssh_string()} -J {jump_host}")
    with closing(open_connection(address, web.port, options)) as connection:
        assert connection.files.stat(".") is not None
        jump, own = wires
        wait_until(lambda: not own.uses_quick_ack)
        assert jump.uses_quick_ack
        assert isinstance(own._stream, paramiko.Channel)
