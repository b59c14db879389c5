"""Start of the tunnel on a transport that is lost at any moment."""

import socket
import socketserver
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any
from urllib.request import urlopen

import pytest

from comfyui_workflow.errors import ConnectionFailed
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.ssh.connection import Connection
from comfyui_workflow.ssh.tunnel import Listener, open_tunnel


class CutAfter:
    """A transport that is active for the first `looks` calls of `is_active`."""

    def __init__(self, looks: int) -> None:
        self._looks_left = looks

    def is_active(self) -> bool:
        self._looks_left -= 1
        return self._looks_left >= 0

    def close(self) -> None:
        pass

    def stop_thread(self) -> None:
        pass


@pytest.mark.parametrize("looks", range(4))
def test_a_transport_that_is_cut_while_the_tunnel_starts_fails_and_keeps_nobody_waiting(looks: int) -> None:
    """All runs of an instance wait for one connection: if its opening hangs, all of them hang."""
    errors: list[ConnectionFailed] = []

    def start() -> None:
        transport: Any = CutAfter(looks)
        try:
            open_tunnel(transport, parse_ssh_address("ssh root@host"), 8188, window_bytes=65_536)
        except ConnectionFailed as error:
            errors.append(error)

    opening = threading.Thread(target=start, daemon=True)
    opening.start()
    opening.join(10)
    assert not opening.is_alive()
    assert len(errors) == 1


def test_connections_that_come_at_once_all_wait_to_be_accepted() -> None:
    """The kernel drops the first packet of connections beyond the backlog; it comes again after a second."""
    with Listener(("127.0.0.1", 0), socketserver.BaseRequestHandler) as listener, ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(listener.server_address, timeout=0.9))


def test_what_is_sent_to_the_client_does_not_wait_for_its_acknowledgement() -> None:
    with (
        Listener(("127.0.0.1", 0), socketserver.BaseRequestHandler) as listener,
        socket.create_connection(listener.server_address, timeout=10),
        closing(listener.get_request()[0]) as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_burst_goes_through_the_tunnel_whole(connection: Connection) -> None:
    """Over a real sshd."""
    with ThreadPoolExecutor(100) as threads:
        answers = threads.map(lambda size: _get(connection, size), range(3000, 3100))
        assert [len(answer) for answer in answers] == list(range(3000, 3100))


def _get(connection: Connection, size_bytes: int) -> bytes:
    with urlopen(f"{connection.base_url}/{size_bytes}", timeout=30) as answer:
        return bytes(answer.read())
