"""Tests of the HTTP client, against minimal servers."""

import socket
import threading
from collections.abc import Iterator

import pytest

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.errors import ComfyUIError, ComfyUIUnavailable

ANSWER = b'{"exec_info": {"queue_remaining": 0}}'


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        yield listening


def test_closing_hangs_up_though_somebody_keeps_an_error(listener: socket.socket) -> None:
    client = ComfyUIClient(f"http://127.0.0.1:{listener.getsockname()[1]}")
    peers: list[socket.socket] = []

    def hang_up_then_answer() -> None:
        listener.accept()[0].close()
        peer = listener.accept()[0]
        peer.settimeout(10)
        peer.recv(65536)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(ANSWER)}\r\n\r\n"
        peer.sendall(head.encode() + ANSWER)
        peers.append(peer)

    server = threading.Thread(target=hang_up_then_answer)
    server.start()
    with pytest.raises(ComfyUIUnavailable) as kept:
        client.probe()
    assert client.probe() == 0
    server.join()
    client.close()
    with peers[0] as peer:
        assert peer.recv(1) == b""
    assert kept.value is not None


def test_a_login_that_was_set_up_later_is_called_that(listener: socket.socket) -> None:
    client = ComfyUIClient(f"http://127.0.0.1:{listener.getsockname()[1]}")

    def refuse() -> None:
        with listener.accept()[0] as peer:
            peer.recv(65536)
            peer.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    server = threading.Thread(target=refuse)
    server.start()
    with pytest.raises(ComfyUIError, match=r"HTTP 401 to /prompt: .* give the instance comfyui_token"):
        client.probe()
    server.join()
    client.close()
