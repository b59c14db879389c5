"""Limits of the data that an SSH server may send, before and after the handshake."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace

import paramiko
import pytest

from comfyui_workflow.errors import ConnectionFailed
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.ssh.connection import ConnectionOptions, open_connection
from comfyui_workflow.ssh.transport import WINDOW_SLACK_BYTES, BoundedTransport
from comfyui_workflow.ssh.transport_socket import wire_over_socket
from tests.ssh.conftest import LIMIT_S, wait_until
from tests.sshd import Sshd

GREETING = b"SSH-2.0-OpenSSH_9.9\r\n"


@contextmanager
def saying(say: Callable[[socket.socket], None]) -> Iterator[int]:
    """Starts a server that calls `say` for each connection. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    with peer, suppress(OSError):
                        peer.settimeout(LIMIT_S)
                        say(peer)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def without_end(peer: socket.socket) -> None:
    while True:
        peer.sendall(b"x" * 65536)


def lines_without_end(peer: socket.socket) -> None:
    while True:
        peer.sendall(b"welcome\r\n" * 5000)


def huge_packet(peer: socket.socket) -> None:
    peer.sendall(GREETING + struct.pack(">IB", 0xFFFFFFF4, 4))
    without_end(peer)


@pytest.mark.parametrize(
    ("say", "words"),
    [
        (without_end, "more than 262144 bytes before it is known"),
        (lines_without_end, "no SSH handshake"),
        (huge_packet, "announces a packet of 429"),
    ],
    ids=["a greeting", "lines", "a packet"],
)
def test_a_server_that_sends_without_end_is_left_at_once(
    say: Callable[[socket.socket], None], words: str, server: Sshd, options: ConnectionOptions
) -> None:
    with saying(say) as port:
        address = parse_ssh_address(f"ssh -p {port} -i {server.key_file} me@127.0.0.1")
        with pytest.raises(ConnectionFailed, match=words):
            open_connection(address, 8188, replace(options, silence_limit_s=60))


class Anyone(paramiko.ServerInterface):
    def check_auth_none(self, username: str) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "none"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED


@pytest.mark.parametrize("to_stderr", [False, True])
def test_a_server_that_sends_more_than_it_was_granted_is_left(to_stderr: bool) -> None:
    near, far = socket.socketpair()
    peer = paramiko.Transport(far)
    peer.add_server_key(paramiko.ECDSAKey.generate())
    wire = wire_over_socket(near)
    with closing(peer), closing(BoundedTransport(wire)) as transport:  # type: ignore[arg-type]
        peer.start_server(server=Anyone(), event=threading.Event())
        transport.start_client(timeout=LIMIT_S)
        wire.handshake_bytes_left = None
        transport.auth_none("me")
        channel = transport.open_session(timeout=LIMIT_S)
        sending = peer.accept(LIMIT_S)
        assert sending is not None
        sending.out_window_size = 1 << 40  # type: ignore[attr-defined]

        def flood() -> None:
            with suppress(OSError, EOFError, paramiko.SSHException):
                for _ in range(4000):
                    (sending.sendall_stderr if to_stderr else sending.sendall)(b"x" * 32768)

        threading.Thread(target=flood, daemon=True).start()
        wait_until(lambda: not transport.is_active())
        assert "more data than the channel's window" in str(transport.get_exception())
        kept = len(channel.in_buffer) + len(channel.in_stderr_buffer)  # type: ignore[attr-defined]
        assert kept <= channel.in_window_size + WINDOW_SLACK_BYTES + 65536  # type: ignore[attr-defined]
