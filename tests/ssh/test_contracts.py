"""Internals of paramiko and sshtunnel that this server depends on. A new version that changes them fails."""

import inspect
import logging
import resource
import socket
import threading
from contextlib import ExitStack, closing
from pathlib import Path

import paramiko
import pytest
import requests
import sshtunnel

from comfyui_workflow.errors import ConnectionFailed
from comfyui_workflow.parsing.ssh_address import SshAddress, parse_ssh_address
from comfyui_workflow.ssh import connection as connection_module
from comfyui_workflow.ssh import tunnel as tunnel_module
from comfyui_workflow.ssh.connection import Connection, ConnectionOptions, open_connection
from comfyui_workflow.ssh.sftp.session import FIRST_REQUEST_NUMBER, READ_ALL_BYTES, READING, SftpSession
from comfyui_workflow.ssh.tunnel import Tunnel, open_tunnel
from tests.ssh.conftest import TinyWeb, no_thread_left, wait_until
from tests.sshd import Sshd

HERE = SshAddress(host="127.0.0.1")


def dead_transport() -> paramiko.Transport:
    class Nothing:
        _closed = True

        def settimeout(self, _timeout_s: float) -> None:
            pass

        def close(self) -> None:
            pass

    return paramiko.Transport(Nothing())  # type: ignore[arg-type]


def test_sshtunnel_takes_our_transport_and_opens_none(connection: Connection, server: Sshd) -> None:
    tunnel = connection._tunnel
    assert tunnel._transport is connection._opened.transport
    assert tunnel.is_active
    assert server.connection_count() == 1


def test_sshtunnel_asks_get_transport_for_a_connection(caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise sshtunnel would open its own connection, without a check of the host key."""
    assert "_get_transport" in inspect.getsource(sshtunnel.SSHTunnelForwarder._connect_to_gateway)
    with pytest.raises(ConnectionFailed, match="was cut while it was opened"):
        open_tunnel(dead_transport(), HERE, 8188, window_bytes=1)


def test_sshtunnel_reads_no_configuration_keys_or_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host *\n  User other\n  Port 1\n  ProxyCommand touch harm\n")
    monkeypatch.setattr(paramiko, "Agent", lambda: pytest.fail("asked the agent"))
    tunnel = Tunnel(dead_transport(), HERE, 8188)
    assert (tunnel.ssh_username, tunnel.ssh_port, tunnel.ssh_proxy) == ("root", 22, None)
    assert tunnel.ssh_pkeys == []


def test_sshtunnel_listens_on_this_machine_only(connection: Connection) -> None:
    assert [server.server_address[0] for server in connection._tunnel._server_list] == ["127.0.0.1"]


def test_sshtunnel_leaves_the_logging_alone(
    server: Sshd, web: TinyWeb, options: ConnectionOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    loggers = [logging.getLogger(name) for name in ("paramiko.transport", "sshtunnel.SSHTunnelForwarder")]
    for each in loggers:  # another library in this process may have added some
        monkeypatch.setattr(each, "handlers", [])
    with closing(open_connection(parse_ssh_address(server.ssh_string()), web.port, options)) as connection:
        assert connection._tunnel.logger.name == "comfyui_workflow.ssh.tunnel"
        assert [each.handlers for each in loggers] == [[], []]


def test_sshtunnel_stops_what_it_started(connection: Connection) -> None:
    connection.close()
    assert connection._tunnel._server_list == []
    wait_until(lambda: not any(thread.name.startswith("Srv-") for thread in threading.enumerate()))


def test_paramiko_lets_a_request_be_sent_without_waiting(connection: Connection) -> None:
    transport = connection._opened.transport
    assert transport.clear_to_send.is_set()
    assert transport.clear_to_send_lock.acquire(timeout=5)
    transport.clear_to_send_lock.release()
    assert callable(transport.packetizer.send_message)


def test_paramiko_reads_with_a_timeout_and_so_notices_quiet(connection: Connection) -> None:
    quiet = threading.Event()
    wire = connection._opened.transport.sock
    wire.on_recv_timeout = quiet.set
    assert quiet.wait(2)


def test_an_answer_is_heard(connection: Connection) -> None:
    """A server answers the request, although the request type is unknown to it."""
    wire = connection._opened.transport.sock
    watch = wire.on_recv_timeout.__self__
    wait_until(lambda: watch._reader_received_count == wire.received_count)
    received_count = wire.received_count
    watch._send_request()
    wait_until(lambda: wire.received_count > received_count)


def test_a_rekeying_connection_goes_on(connection: Connection) -> None:
    """paramiko repeats the key exchange every 512 MiB; here it does so after each request."""
    for size_bytes in (10, 3_000_000, 10):
        connection._opened.transport.renegotiate_keys()
        connection._opened.transport.sock.on_recv_timeout()
        with requests.Session() as session:
            assert len(session.get(f"{connection.base_url}/{size_bytes}", timeout=10).content) == size_bytes


def test_paramiko_logs_where_we_say(connection: Connection) -> None:
    assert connection._opened.transport.get_log_channel() == "comfyui_workflow.ssh"


def test_a_closed_channel_is_told_in_these_words(
    server: Sshd, web: TinyWeb, options: ConnectionOptions
) -> None:
    connection = open_connection(parse_ssh_address(server.ssh_string()), web.port, options)
    assert connection.files.stat("/") is not None, "now there is a session"
    client = connection.files._channels._free[0].client
    client.sock.close()
    with pytest.raises(OSError, match=r"^Socket is closed$"):
        client.stat("/")
    with pytest.raises(ConnectionFailed):
        connection.files.stat("/")
    assert connection.files.stat("/") is not None, "the next session is a new one"
    connection.close()


# --- internals that the copy loops of files and tunnel use -----------------------------------------


def test_a_connection_that_is_cut_while_its_tunnel_starts_is_one_that_failed(
    server: Sshd, web: TinyWeb, options: ConnectionOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sshtunnel then raises an exception of its own when its port is read."""
    start = Tunnel.start

    def start_and_be_cut(tunnel: Tunnel) -> None:
        start(tunnel)
        server.kill_connections()
        wait_until(lambda: not tunnel._transport.is_active())

    monkeypatch.setattr(Tunnel, "start", start_and_be_cut)
    with no_thread_left(), pytest.raises(ConnectionFailed, match="Failed to create SSH tunnel"):
        open_connection(parse_ssh_address(server.ssh_string()), web.port, options)


def test_sshtunnel_leaves_the_copying_to_us(connection: Connection) -> None:
    """In a process with more open files than select() supports, and with large windows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2_000:
        pytest.skip("so many files may not be opened here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2_000), hard))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1_100):
            stack.enter_context(Path("/dev/null").open("rb"))
        with requests.Session() as session:
            assert len(session.get(f"{connection.base_url}/3000000", timeout=10).content) == 3_000_000


def test_channels_of_the_tunnel_have_the_window_we_say(
    server: Sshd, web: TinyWeb, options: ConnectionOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "in_flight_bytes", lambda _round_trip_s: 5_000_000)
    connection = open_connection(parse_ssh_address(server.ssh_string()), web.port, options)
    windows = []
    copy = tunnel_module.copy_both_ways

    def look_and_copy(local: socket.socket, channel: paramiko.Channel) -> None:
        windows.append(channel.in_window_size)
        copy(local, channel)

    monkeypatch.setattr(tunnel_module, "copy_both_ways", look_and_copy)
    with requests.Session() as session:
        session.get(f"{connection.base_url}/10", timeout=10)
    connection.close()
    assert windows == [5_000_000]


def test_paramiko_gives_all_that_has_arrived_at_once(connection: Connection) -> None:
    """So paramiko has no rest to move at the next read."""
    with connection.files._channels.lease() as session:
        channel = session.client.get_channel()
        channel.in_buffer.feed(b"x" * 3_000_000)
        assert len(channel.recv(READ_ALL_BYTES)) == 3_000_000
        assert not channel.recv_ready()


def test_paramikos_client_and_ours_take_turns_on_one_session(connection: Connection, tmp_path: Path) -> None:
    """A pending response to one of them is not taken for a response to the other."""
    (tmp_path / "file").write_bytes(b"x" * 1_000_000)
    with connection.files._channels.lease() as session:
        for _ in range(3):
            handle = session.handle(session.open(str(tmp_path / "file"), READING))
            for offset in range(0, 1_000_000, 100_000):
                session.abandon(session.read(handle, offset, 100_000))
            session.abandon(session.close_file(handle))
            client = session.client
            assert (session._abandoned, session._received) == (set(), bytearray()), "all of it has arrived"
            assert client.stat(str(tmp_path / "file")).st_size == 1_000_000


def test_a_server_that_talks_nonsense_is_as_good_as_gone(connection: Connection) -> None:
    for nonsense in (
        b"\0\0\0\0more and more",
        b"\xff" * 20,
        b"\0\0\0\x05\x67\x80\0\0\0",
        b"\0\0\0\x05\x65\x80\0\0\0",
    ):
        with connection.files._channels.lease() as session:
            client = session.client
        fresh = SftpSession(client, 10.0)
        fresh._pending.add(FIRST_REQUEST_NUMBER)
        client.get_channel().in_buffer.feed(nonsense)
        with pytest.raises(EOFError):
            fresh.handle(FIRST_REQUEST_NUMBER)
