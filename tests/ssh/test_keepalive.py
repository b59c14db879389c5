"""A frozen peer is detected and all waiting calls end; a quiet but responding peer stays connected."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from comfyui_workflow.errors import ConnectionFailed
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.ssh.connection import Connection, ConnectionOptions, open_connection
from comfyui_workflow.ssh.keepalive import supervisor
from tests.ssh.conftest import TinyWeb, no_thread_left, wait_until
from tests.sshd import Sshd


@pytest.fixture
def quick(options: ConnectionOptions) -> ConnectionOptions:
    return replace(options, keepalive_interval_s=0.3, silence_limit_s=1.0)


@pytest.fixture
def connection(server: Sshd, web: TinyWeb, quick: ConnectionOptions) -> Iterator[Connection]:
    opened = open_connection(parse_ssh_address(server.ssh_string()), web.port, quick)
    yield opened
    server.thaw()
    opened.close()


def test_a_frozen_peer_is_noticed(connection: Connection, server: Sshd) -> None:
    server.freeze()
    assert wait_until(lambda: not connection.is_alive) > 0.5


def test_a_frozen_peer_is_noticed_within_20_s_by_default(
    server: Sshd, web: TinyWeb, options: ConnectionOptions
) -> None:
    connection = open_connection(parse_ssh_address(server.ssh_string()), web.port, options)
    with no_thread_left():
        server.freeze()
        start = time.monotonic()
        with pytest.raises(ConnectionFailed, match="was cut"):
            connection.files.stat("/")
        assert 10 < time.monotonic() - start < 40, "20 s, and this machine may be slow"
    connection.close()


def test_a_quiet_peer_is_left_alone(connection: Connection) -> None:
    time.sleep(3)  # three times the silence that a frozen peer is allowed
    assert connection.is_alive
    assert connection.files.stat("/") is not None


def test_a_short_freeze_is_forgiven(server: Sshd, web: TinyWeb, quick: ConnectionOptions) -> None:
    options = replace(quick, silence_limit_s=2.0)
    connection = open_connection(parse_ssh_address(server.ssh_string()), web.port, options)
    for _ in range(3):
        server.freeze()
        time.sleep(0.9)
        server.thaw()
        time.sleep(0.5)
    assert connection.is_alive
    connection.close()


def test_everybody_who_waits_is_released(connection: Connection, server: Sshd, tmp_path: Path) -> None:
    """A read, an upload that fills every buffer, a request through the tunnel, and a session being opened."""
    large = tmp_path / "large"
    large.write_bytes(os.urandom(30_000_000))
    is_sending = threading.Event()

    def freeze_midway(done_bytes: int, _total_bytes: int) -> None:
        if done_bytes > 1_000_000 and not is_sending.is_set():
            server.freeze()
            is_sending.set()

    def upload() -> None:
        connection.files.upload(large, str(tmp_path / "copy"), progress=freeze_midway)

    def ask() -> None:
        requests.get(f"{connection.base_url}/10", timeout=30)

    with ThreadPoolExecutor(4) as threads, no_thread_left():
        waiting: list[tuple[Future[None], type[Exception]]] = [(threads.submit(upload), ConnectionFailed)]
        assert is_sending.wait(10)
        actions: list[tuple[Callable[[], object], type[Exception]]] = [
            (lambda: connection.files.stat("/"), ConnectionFailed),
            (connection.check_port, ConnectionFailed),
            (ask, requests.RequestException),
        ]
        waiting += [(threads.submit(action), error) for action, error in actions]  # type: ignore[misc]
        for future, error in waiting:
            with pytest.raises(error):
                future.result(15)
        connection.close()
        threads.shutdown()


def test_closing_a_frozen_connection_takes_no_time(
    server: Sshd, web: TinyWeb, options: ConnectionOptions, tmp_path: Path
) -> None:
    connection = open_connection(parse_ssh_address(server.ssh_string()), web.port, options)
    large = tmp_path / "large"
    large.write_bytes(bytes(30_000_000))
    with (
        ThreadPoolExecutor(2) as threads,
        socket.create_connection(("127.0.0.1", int(connection.base_url.rpartition(":")[2])), 5),
    ):
        server.freeze()
        upload = threads.submit(connection.files.upload, large, str(tmp_path / "copy"))
        ask = threads.submit(connection.files.stat, "/")
        time.sleep(0.5)
        start = time.monotonic()
        connection.close()
        assert time.monotonic() - start < 8, "until the silence is noticed it were 15 s"
        for future in (upload, ask):
            with pytest.raises(ConnectionFailed):
                future.result(15)


def test_a_frozen_connection_does_not_hold_up_the_others(
    connection: Connection, web: TinyWeb, quick: ConnectionOptions, server: Sshd, tmp_path: Path
) -> None:
    with Sshd(tmp_path / "other") as other_server:
        other = open_connection(parse_ssh_address(other_server.ssh_string()), web.port, quick)
        large = tmp_path / "large"
        large.write_bytes(bytes(30_000_000))
        with ThreadPoolExecutor(1) as threads:
            server.freeze()
            upload = threads.submit(connection.files.upload, large, str(tmp_path / "copy"))
            wait_until(lambda: not connection.is_alive)
            with pytest.raises(ConnectionFailed):
                upload.result(15)
        assert other.is_alive
        other_server.freeze()
        wait_until(lambda: not other.is_alive)
        other.close()


def test_a_frozen_jump_host_is_noticed(
    server: Sshd, web: TinyWeb, quick: ConnectionOptions, tmp_path: Path
) -> None:
    with Sshd(tmp_path / "bastion") as bastion, no_thread_left():
        bastion.authorize(server.key_file)
        address = parse_ssh_address(f"{server.ssh_string()} -J {bastion.user}@{bastion.host}:{bastion.port}")
        connection = open_connection(address, web.port, quick)
        bastion.freeze()
        wait_until(lambda: not connection.is_alive)
        connection.close()


def test_the_supervisor_ends_with_the_last_connection(connection: Connection) -> None:
    assert supervisor.is_running
    connection.close()
    wait_until(lambda: not supervisor.is_running)


def test_our_own_pause_is_not_the_peers_silence(connection: Connection) -> None:
    """A laptop that slept: an hour between two ticks counts as two ticks."""
    watch = connection._opened.transport.sock.on_recv_timeout.__self__
    for _ in range(3):
        watch.count_silence(3600)
    assert connection.is_alive


def test_a_large_upload_is_no_silence(connection: Connection, server: Sshd, tmp_path: Path) -> None:
    """While data is sent, the responses to it count as received data."""
    large = tmp_path / "large"
    large.write_bytes(bytes(1_000_000))

    def slowly(_done_bytes: int, _total_bytes: int) -> None:
        time.sleep(0.08)

    connection.files.upload(large, str(tmp_path / "copy"), progress=slowly)
    assert connection.is_alive
