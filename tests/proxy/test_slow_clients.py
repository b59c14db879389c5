"""Tests of clients of a local port that are idle, slow or too many."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from comfyui_workflow.access.connection_limits import ConnectionLimits, Credit
from comfyui_workflow.proxy.model import PortWanted
from comfyui_workflow.proxy.ports import LocalPorts
from tests.proxy.scripted_server import ScriptedServer
from tests.proxy.setting import Lender, Setting, local_port
from tests.sandbox.running_comfyui import LIMIT_S, RunningComfyUI, wait_until

GET = b"GET /queue HTTP/1.1\r\nHost: localhost\r\n\r\n"
Start = Callable[[ConnectionLimits], Setting]


@pytest.fixture
def start(comfyui: RunningComfyUI) -> Iterator[Start]:
    with ExitStack() as opened:
        yield lambda limits: opened.enter_context(local_port(comfyui, limits))


@contextmanager
def connected(setting: Setting) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", setting.port), timeout=LIMIT_S) as client:
        yield client


def asked(client: socket.socket) -> bytes:
    """Sends a request and returns the whole response."""
    client.sendall(GET)
    heard = b""
    while not heard.endswith(b"]}"):
        piece = client.recv(65536)
        assert piece
        heard += piece
    return heard


def drip(client: socket.socket, every_s: float) -> bytes:
    """Sends byte by byte until the connection is closed; returns the response. Raises: AssertionError if it
    is not closed."""
    heard, until_s = b"", time.monotonic() + LIMIT_S
    client.settimeout(every_s)
    while time.monotonic() < until_s:
        try:
            client.send(b"x")
            piece = client.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            return heard
        if not piece:
            return heard
        heard += piece
    raise AssertionError("it was not cut off")


def test_headers_that_come_byte_by_byte_are_cut(start: Start) -> None:
    setting = start(ConnectionLimits(head_s=1.0))
    with connected(setting) as client:
        client.sendall(GET[:-2] + b"X: ")
        assert drip(client, 0.1).startswith(b"HTTP/1.1 408 ")


def test_so_are_those_of_a_second_request(start: Start) -> None:
    setting = start(ConnectionLimits(head_s=1.0))
    with connected(setting) as client:
        assert asked(client).startswith(b"HTTP/1.1 200 ")
        client.sendall(GET[:-2] + b"X: ")
        assert b"HTTP/1.1 408 " in drip(client, 0.1)


def test_a_body_that_drips_is_cut(start: Start) -> None:
    setting = start(ConnectionLimits(body=Credit(seconds=1.0, bytes_per_s=500.0)))
    with connected(setting) as client:
        client.sendall(b"POST /prompt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        drip(client, 0.1)


def test_silent_connections_are_closed(start: Start) -> None:
    setting = start(ConnectionLimits(head_s=0.5))
    with connected(setting) as client:
        assert client.recv(1) == b""


def test_one_that_asks_now_and_then_and_a_websocket_stay(start: Start) -> None:
    setting = start(ConnectionLimits(head_s=0.5, idle_s=2.0, body=Credit(seconds=1.0)))
    with connected(setting) as client, connected(setting) as websocket, connected(setting) as idle:
        websocket.sendall(
            b"GET /ws?clientId=a HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert websocket.recv(65536).startswith(b"HTTP/1.1 101 ")
        asked(idle)
        idle.settimeout(0.4)
        while True:
            assert asked(client).startswith(b"HTTP/1.1 200 ")
            with suppress(TimeoutError):
                assert idle.recv(65536) == b""
                break
        websocket.settimeout(0.1)
        with suppress(TimeoutError):
            while True:
                assert websocket.recv(65536), "the websocket was closed"
        assert setting.state.open_sockets == 1


def test_the_oldest_idle_ones_make_room(start: Start) -> None:
    setting = start(ConnectionLimits(most=10, head_s=3600.0))
    with ExitStack() as opened:
        clients = [opened.enter_context(connected(setting)) for _ in range(12)]
        with suppress(ConnectionResetError):
            assert clients[0].recv(1) == b""
        for _ in range(12):
            assert setting.get("/queue").status_code == 200


def test_a_client_that_does_not_read_is_cut_off_and_a_slow_one_is_not() -> None:
    body = bytes(20 * 1024 * 1024)
    limits = ConnectionLimits(sending=Credit(seconds=1.5, bytes_per_s=500.0))
    with ScriptedServer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as server:
        ports = LocalPorts(Lender(server.base_url).borrow, limits)
        ports.start()
        try:
            ports.set_ports({"one": PortWanted(name="primary", port=0)})
            state = ports.state("one")
            assert state
            setting = ("127.0.0.1", state.port)
            with socket.create_connection(setting, timeout=LIMIT_S) as deaf:
                deaf.sendall(GET)
                with socket.create_connection(setting, timeout=LIMIT_S) as slow:
                    slow.sendall(GET)
                    heard, began_s = 0, time.monotonic()
                    while heard < len(body):
                        piece = slow.recv(65536)
                        assert piece
                        heard += len(piece)
                        time.sleep(0.02 if time.monotonic() - began_s < 4.0 else 0)
                wait_until(lambda: _open_requests(ports) == 0)
        finally:
            ports.stop()


def _open_requests(ports: LocalPorts) -> int:
    state = ports.state("one")
    assert state
    return state.open_requests
