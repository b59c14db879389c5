"""A connection to a real sshd: opened, used, refused, lost and closed."""

import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest
import requests

from comfyui_workflow.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    HostKeyRefused,
    InvalidAddress,
    KeyRefused,
    WorkflowError,
)
from comfyui_workflow.parsing.ssh_address import SshAddress, parse_ssh_address
from comfyui_workflow.ssh.connection import Connection, ConnectionOptions, open_connection
from comfyui_workflow.ssh.pool import Pool
from comfyui_workflow.ssh.sockets import connect
from tests.instance import Instance
from tests.other_users import NOBODY, as_root, ask_as
from tests.ssh.conftest import TinyWeb, no_thread_left, wait_until
from tests.sshd import Sshd


def open_to(server: Sshd, options: ConnectionOptions, port: int = 8188, **how: object) -> Connection:
    address = parse_ssh_address(server.ssh_string(**how))  # type: ignore[arg-type]
    return open_connection(address, port, options)


def get(connection: Connection, size_bytes: int = 10) -> bytes:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(f"{connection.base_url}/{size_bytes}", timeout=(5, 10)).content


def test_both_ssh_servers_lead_to_comfyui(instance: Instance, options: ConnectionOptions) -> None:
    address = parse_ssh_address(instance.ssh_string)
    connection = open_connection(address, instance.comfyui_port, options)
    try:
        connection.check_port()
        answer = requests.get(f"{connection.base_url}/system_stats", timeout=10).json()
        assert "system" in answer
        assert connection.files.stat(".") is not None
        assert 0 < connection.round_trip_s < 5
        assert connection.host_key_fingerprint.startswith("SHA256:")
        instance.cut()
        wait_until(lambda: not connection.is_alive)
    finally:
        connection.close()


def test_the_tunnel_carries_small_and_large(connection: Connection) -> None:
    assert len(get(connection, 1)) == 1
    assert len(get(connection, 5_000_000)) == 5_000_000


def test_the_tunnel_listens_on_this_machine_only(connection: Connection) -> None:
    port = int(connection.base_url.rpartition(":")[2])
    with socket.socket() as elsewhere, pytest.raises(OSError):
        elsewhere.settimeout(5)
        elsewhere.connect(("127.0.0.2", port))


@as_root
def test_other_users_of_this_machine_have_nothing_of_the_tunnel(connection: Connection) -> None:
    port = int(connection.base_url.rpartition(":")[2])
    assert " 200 " in ask_as(0, port, "/10").partition("\r\n")[0]
    assert ask_as(NOBODY, port, "/10") == ""


def test_many_requests_at_once(connection: Connection) -> None:
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda size: len(get(connection, size)), range(1, 200_000, 5_000)))
    assert answers == list(range(1, 200_000, 5_000))


def test_it_prefers_the_cheap_cipher(connection: Connection) -> None:
    assert connection._opened.transport.local_cipher == "aes128-gcm@openssh.com"


def test_it_speaks_to_servers_without_that_cipher(server: Sshd, options: ConnectionOptions) -> None:
    server.stop()
    server.add_config("Ciphers aes256-ctr")
    server.start()
    connection = open_to(server, options)
    assert connection._opened.transport.local_cipher == "aes256-ctr"
    connection.close()


def test_nobody_listening_is_said_precisely(server: Sshd, options: ConnectionOptions) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        connection = open_to(server, options, port)
        with pytest.raises(ConnectionFailed, match=f"Nothing listens on port {port} of the instance"):
            connection.check_port()
        with pytest.raises(requests.ConnectionError):
            get(connection)
        connection.close()


def test_many_who_ask_at_once_for_a_port_are_all_told(server: Sshd, options: ConnectionOptions) -> None:
    connection = open_to(server, options, 1)

    def ask(_number: int) -> str:
        with pytest.raises(ConnectionFailed) as failure:
            connection.check_port()
        return str(failure.value)

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(ask, range(40)))) == 1
    connection.close()


def test_a_forbidden_tunnel_is_said(server: Sshd, options: ConnectionOptions, web: TinyWeb) -> None:
    server.stop()
    server.add_config("AllowTcpForwarding no")
    server.start()
    connection = open_to(server, options, web.port)
    with pytest.raises(ConnectionFailed, match="does not allow a tunnel"):
        connection.check_port()
    connection.close()


def test_closing_leaves_nothing_behind(server: Sshd, options: ConnectionOptions, web: TinyWeb) -> None:
    with no_thread_left():
        connection = open_to(server, options, web.port)
        get(connection)
        connection.files.stat("/")
        with socket.create_connection(
            ("127.0.0.1", int(connection.base_url.rpartition(":")[2])), 5
        ) as open_end:
            open_end.settimeout(5)
            wait_until(lambda: any("process_request" in thread.name for thread in threading.enumerate()))
            connection.close()
            connection.close()
            with suppress(ConnectionResetError):  # an end as good as the other
                assert open_end.recv(10) == b""
        assert not connection.is_alive
        with pytest.raises(requests.ConnectionError):
            get(connection)
    wait_until(lambda: server.connection_count() == 0)


def test_a_cut_connection_says_so(connection: Connection, server: Sshd) -> None:
    server.kill_connections()
    wait_until(lambda: not connection.is_alive)
    with pytest.raises(ConnectionFailed, match="was cut"):
        connection.check_port()
    with pytest.raises(ConnectionFailed, match="was cut"):
        connection.files.stat("/")


# --- what does not open ---------------------------------------------------------------------------


def test_a_refused_port_is_transient(server: Sshd, options: ConnectionOptions) -> None:
    server.stop()
    with pytest.raises(ConnectionFailed, match=r"^Failed to create SSH tunnel: .*refused") as failure:
        open_to(server, options)
    assert failure.value.is_transient


def test_what_was_not_delivered_when_a_connection_is_closed_is_never_delivered() -> None:
    """Otherwise a prompt in the unsent data would arrive after it was submitted again."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host, port = listening.getsockname()
        near = connect(host, port, timeout_s=5, allow_loopback=True)
        far, _ = listening.accept()
        with far:
            near.setblocking(False)
            sent = 0
            with suppress(BlockingIOError):
                while True:
                    sent += near.send(bytes(65536))
            near.close()
            far.settimeout(5)
            arrived = 0
            with suppress(ConnectionResetError):
                while data := far.recv(65536):
                    arrived += len(data)
    assert arrived < sent


def test_a_server_that_says_nothing_is_given_up(options: ConnectionOptions) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, no_thread_left():
        address = SshAddress(host="127.0.0.1", port=silent.getsockname()[1])
        start = time.monotonic()
        with pytest.raises(ConnectionFailed, match="Failed to create SSH tunnel: no SSH handshake"):
            open_connection(address, 8188, with_key(options, connect_timeout_s=0.5))
        assert time.monotonic() - start < 8


def test_a_server_that_freezes_amid_the_key_exchange_is_given_up(
    server: Sshd, options: ConnectionOptions
) -> None:
    """A relay that forwards the first bytes of sshd and nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as relay, no_thread_left():

        def hand_on_the_greeting() -> None:
            client, _ = relay.accept()
            with client, socket.create_connection((server.host, server.port)) as sshd:
                banner_and_proposal = sshd.makefile("rb")
                client.sendall(banner_and_proposal.readline())
                sshd.sendall(client.recv(4096))
                head = banner_and_proposal.read(4)
                client.sendall(head + banner_and_proposal.read(int.from_bytes(head)))
                while client.recv(4096):
                    pass

        threading.Thread(target=hand_on_the_greeting, daemon=True).start()
        address = replace(parse_ssh_address(server.ssh_string()), port=relay.getsockname()[1])
        start = time.monotonic()
        with pytest.raises(ConnectionFailed, match=r"no SSH handshake with .* \(no answer in time\)"):
            open_connection(address, 8188, replace(options, silence_limit_s=1.0))
        assert time.monotonic() - start < 8


@pytest.mark.parametrize(
    ("greeting", "told", "is_transient"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a web server answers there, so this is not the port", False),
        (b"\x15\x03\x01\x00\x02\x02\x46", "a web server answers there", False),
        (b"Exceeded MaxStartups\r\n", 'something says "Exceeded MaxStartups"', True),
        (b"Not allowed at this time\r\n", 'something says "Not allowed at this time"', True),
        (b"\x1b[31mStopped\x07\r\n", 'something says "Stopped"', True),
        (b"J\0\0\0\n8.0.33\0", "in place of an SSH server", True),
        (b"", "says nothing: its SSH server may still be starting", True),
        (b"\x00\xff" * 500, "in place of an SSH server", True),
    ],
)
def test_what_is_no_ssh_server_is_said(
    options: ConnectionOptions, greeting: bytes, told: str, is_transient: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger, no_thread_left():

        def greet() -> None:
            connection, _ = stranger.accept()
            with connection:
                connection.sendall(greeting)

        threading.Thread(target=greet, daemon=True).start()
        address = SshAddress(host="127.0.0.1", port=stranger.getsockname()[1])
        with pytest.raises(ConnectionFailed, match="no SSH handshake") as failure:
            open_connection(address, 8188, with_key(options, connect_timeout_s=2))
    assert told in str(failure.value)
    assert failure.value.is_transient is is_transient
    assert len(str(failure.value)) < 700
    assert str(failure.value).isprintable()


@pytest.mark.parametrize(
    ("number", "is_transient"), [(socket.EAI_NONAME, False), (socket.EAI_AGAIN, True), (None, True)]
)
def test_a_name_that_cannot_be_resolved(
    options: ConnectionOptions, monkeypatch: pytest.MonkeyPatch, number: int | None, is_transient: bool
) -> None:
    """An unknown name is a permanent error; an unavailable or slow resolver is a transient one."""
    may_end = threading.Event()

    def resolve(*_arguments: object, **_options: object) -> None:
        if number is None:
            may_end.wait(10)
        raise socket.gaierror(number or socket.EAI_FAIL, "no such luck")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(ConnectionFailed, match=r"name nowhere\.invalid cannot be resolved") as failure:
        open_connection(SshAddress(host="nowhere.invalid"), 8188, with_key(options, connect_timeout_s=0.2))
    may_end.set()
    assert failure.value.is_transient is is_transient


def test_a_name_is_checked_by_where_it_leads(
    options: ConnectionOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_options: found)
    with pytest.raises(InvalidAddress, match=r"gpu\.example leads to 169\.254\.169\.254"):
        open_connection(SshAddress(host="gpu.example"), 8188, with_key(options))


def test_a_reset_in_the_handshake_is_worded(options: ConnectionOptions) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:

        def reset() -> None:
            connection, _ = stranger.accept()
            connection.recv(100)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

        threading.Thread(target=reset, daemon=True).start()
        address = SshAddress(host="127.0.0.1", port=stranger.getsockname()[1])
        with pytest.raises(
            ConnectionFailed, match=r"no SSH handshake.*(reset by peer|closed the connection)"
        ) as failure:
            open_connection(address, 8188, with_key(options))
    assert "Errno" not in str(failure.value)
    assert failure.value.is_transient


@pytest.mark.parametrize("host", ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "224.0.0.1"])
def test_hosts_where_no_instance_can_be_are_refused(options: ConnectionOptions, host: str) -> None:
    with pytest.raises(InvalidAddress, match="refused"):
        open_connection(SshAddress(host=host), 8188, with_key(options))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "localhost", "::1", "0.0.0.0", "::ffff:127.0.0.1"]
)
def test_this_server_itself_can_be_refused(options: ConnectionOptions, host: str) -> None:
    with pytest.raises(InvalidAddress, match="this server itself"):
        open_connection(SshAddress(host=host), 8188, with_key(options, allow_loopback_hosts=False))


def with_key(options: ConnectionOptions, **changes: object) -> ConnectionOptions:
    """Options with any key, for machines that never receive it."""
    key = options.known_hosts.path.with_name("some_key")
    paramiko.ECDSAKey.generate().write_private_key_file(str(key))
    return replace(options, key_file=key, **changes)  # type: ignore[arg-type]


# --- keys -----------------------------------------------------------------------------------------


def test_a_wrong_key_is_never_tried_again(server: Sshd, options: ConnectionOptions) -> None:
    wrong = server.make_key("wrong_key")
    with (
        no_thread_left(),
        pytest.raises(AuthenticationFailed, match="accepts none of the keys SHA256:") as failure,
    ):
        open_to(server, options, key_file=wrong)
    assert not failure.value.is_transient


def test_keys_are_tried_in_turn_on_one_connection(server: Sshd, options: ConnectionOptions) -> None:
    wrong = server.make_key("wrong_key")
    connection = open_to(server, replace(options, key_file=server.key_file), key_file=wrong)
    connection.close()
    assert server.log().count("Connection from") <= 1
    assert server.log().count("Accepted publickey") == 1


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_keys_and_passphrases(server: Sshd, options: ConnectionOptions, kind: str) -> None:
    key = server.make_key("other_key", key_type=kind, passphrase="open sesame")
    server.authorize(key)
    open_to(server, replace(options, key_passphrase="open sesame"), key_file=key).close()


def test_a_server_that_wants_more_than_a_key_is_said(server: Sshd, options: ConnectionOptions) -> None:
    server.stop()
    server.add_config("PasswordAuthentication yes", "AuthenticationMethods publickey,password")
    server.start()
    with pytest.raises(AuthenticationFailed, match="accepts the key, and wants password too"):
        open_to(server, options)


def test_a_missing_key_is_named_when_nothing_else_helps(server: Sshd, options: ConnectionOptions) -> None:
    missing = Path("/nowhere/key")
    with pytest.raises(
        AuthenticationFailed, match=r"no key to show\. The key file /nowhere/key does not exist"
    ):
        open_to(server, options, key_file=missing)
    open_to(server, replace(options, key_file=server.key_file), key_file=missing).close()


def test_a_key_from_elsewhere_is_refused(server: Sshd, options: ConnectionOptions, tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match="outside of the directories"):
        open_to(server, replace(options, allowed_key_directories=(tmp_path / "keys",)))


def test_a_wrong_user_is_refused(server: Sshd, options: ConnectionOptions) -> None:
    address = replace(parse_ssh_address(server.ssh_string()), user="nobody-here")
    with pytest.raises(AuthenticationFailed, match="nobody-here@"):
        open_connection(address, 8188, options)


def test_a_server_that_wants_passwords_is_said(server: Sshd, options: ConnectionOptions) -> None:
    server.stop()
    server.add_config("PubkeyAuthentication no", "PasswordAuthentication yes")
    server.start()
    with pytest.raises(AuthenticationFailed, match="does not accept keys, only password"):
        open_to(server, options)


# --- host keys ------------------------------------------------------------------------------------


def test_another_machine_is_refused_until_the_old_one_is_forgotten(
    server: Sshd, options: ConnectionOptions
) -> None:
    first = open_to(server, options)
    first.close()
    server.change_host_key()
    with no_thread_left(), pytest.raises(HostKeyRefused, match="forget") as refusal:
        open_to(server, options)
    assert first.host_key_fingerprint in str(refusal.value)
    assert "Accepted publickey" not in server.log().rpartition("Server listening")[2], (
        "the key was shown to it"
    )
    assert options.known_hosts.forget(server.host, server.port)
    second = open_to(server, options)
    second.close()
    assert second.host_key_fingerprint in str(refusal.value)


def test_a_machine_with_more_keys_is_still_the_same(server: Sshd, options: ConnectionOptions) -> None:
    """If a server has several host keys, the known one is requested, whichever the server prefers."""
    server.stop()
    server.add_config(f"HostKey {server.make_key('second_host_key', key_type='rsa')}")
    server.start()
    for known in ("ssh-ed25519", "rsa-sha2-512"):
        options.known_hosts.forget(server.host, server.port)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("paramiko.Transport._preferred_keys", (known,))
            open_to(server, options).close()
        open_to(server, options).close()


def test_a_pinned_machine(server: Sshd, options: ConnectionOptions) -> None:
    opened = open_to(server, options)
    opened.close()
    open_to(server, replace(options, pinned_fingerprint=opened.host_key_fingerprint)).close()
    with pytest.raises(HostKeyRefused, match="pin"):
        open_to(server, replace(options, pinned_fingerprint="SHA256:AAAA"))


# --- through a jump host --------------------------------------------------------------------------


def test_through_a_jump_host(server: Sshd, web: TinyWeb, options: ConnectionOptions, tmp_path: Path) -> None:
    with Sshd(tmp_path / "bastion") as bastion, no_thread_left():
        bastion.authorize(server.key_file)
        jump = f" -J {bastion.user}@{bastion.host}:{bastion.port}"
        connection = open_connection(parse_ssh_address(server.ssh_string() + jump), web.port, options)
        assert len(get(connection, 100_000)) == 100_000
        assert connection.files.stat("/") is not None
        assert bastion.connection_count() == 1
        connection.close()
        wait_until(lambda: bastion.connection_count() == 0)


def test_a_jump_that_leads_nowhere_is_said(server: Sshd, options: ConnectionOptions) -> None:
    address = parse_ssh_address(
        f"ssh -i {server.key_file} -J {server.user}@127.0.0.1:{server.port} 127.0.0.1:9"
    )
    with no_thread_left(), pytest.raises(ConnectionFailed, match=r"does not reach root@127\.0\.0\.1:9"):
        open_connection(address, 8188, options)


# --- many at once ---------------------------------------------------------------------------------


def test_a_crowd_of_handshakes_is_let_in_three_at_a_time(tmp_path: Path, options: ConnectionOptions) -> None:
    """This sshd drops connections when more than six are not authenticated."""
    with Sshd(tmp_path / "sshd", max_startups="6:100:6") as server, ThreadPoolExecutor(12) as threads:
        opened = [threads.submit(open_to, server, options) for _ in range(12)]
        for future in opened:
            future.result(60).close()


def test_a_pool_of_connections(server: Sshd, web: TinyWeb, options: ConnectionOptions) -> None:
    def open_key(key: tuple[SshAddress, int]) -> Connection:
        return open_connection(key[0], key[1], options)

    pool: Pool[tuple[SshAddress, int], Connection] = Pool(open_key)
    key = (parse_ssh_address(server.ssh_string()), web.port)

    def use() -> str:
        with pool.lease(key) as connection:
            assert len(get(connection)) == 10
            return connection.base_url

    with no_thread_left():
        with ThreadPoolExecutor(8) as threads:
            first = {future.result(30) for future in [threads.submit(use) for _ in range(8)]}
        with pool.lease(key) as old:
            server.kill_connections()
            wait_until(lambda: not old.is_alive)
        assert use() not in first
        pool.close()
    assert len(first) == 1


def test_every_failure_is_a_sentence(server: Sshd, options: ConnectionOptions) -> None:
    server.stop()
    with pytest.raises(WorkflowError) as failure:
        open_to(server, options)
    assert str(failure.value).endswith(".")
    assert "Errno" not in str(failure.value)
