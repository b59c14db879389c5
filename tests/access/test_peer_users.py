"""Tests of peer users: connections of other users of this machine are refused."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from comfyui_workflow.access import peer_users
from comfyui_workflow.access.peer_users import PeerUsers, is_of_another_user, uid_of_peer
from comfyui_workflow.errors import ConfigurationError
from comfyui_workflow.proxy.model import PortPolicy, PortWanted
from comfyui_workflow.proxy.ports import LocalPorts
from comfyui_workflow.settings import load_settings
from tests.other_users import LIMIT_S, NOBODY, as_root, ask_as, linux_only, start_as
from tests.proxy.scripted_server import ScriptedServer
from tests.proxy.setting import Lender
from tests.runs.test_state_machine import GRAPH
from tests.server_process import ServerProcess


@contextmanager
def accepted(
    connect_to: str, uid: int = 0, *, bound_to: str = ""
) -> Iterator[tuple[socket.socket, "subprocess.Popen[str]"]]:
    """Yields the server's end of a connection, and the process at the other end."""
    family = socket.AF_INET6 if ":" in (bound_to or connect_to) else socket.AF_INET
    with socket.socket(family) as listener:
        if family is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((bound_to or connect_to, 0))
        listener.listen()
        listener.settimeout(LIMIT_S)
        client = start_as(uid, connect_to, listener.getsockname()[1], "hello", waits=False)
        connection, _ = listener.accept()
        with client, connection:
            yield connection, client
            client.communicate(timeout=LIMIT_S)


WAYS = [
    {"connect_to": "127.0.0.1"},
    {"connect_to": "::1"},
    {"connect_to": "127.0.0.1", "bound_to": "::"},  # as a v4-mapped address
    {"connect_to": "::ffff:127.0.0.1", "bound_to": "127.0.0.1"},
]


def refuse_netlink(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


@as_root
@pytest.mark.parametrize("is_kernel_asked", [True, False])
@pytest.mark.parametrize("uid", [0, NOBODY])
@pytest.mark.parametrize("way", WAYS)
def test_the_user_of_a_connection(
    way: dict[str, str], uid: int, is_kernel_asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_kernel_asked:  # as in a container that is not allowed to: the tables in /proc are read
        monkeypatch.setattr(peer_users, "_ask_kernel", refuse_netlink)
    with accepted(**way, uid=uid) as (connection, _):
        assert uid_of_peer(connection) == uid
        assert is_of_another_user(connection) is (uid != 0)


@as_root
@pytest.mark.parametrize("is_kernel_asked", [True, False])
def test_a_client_that_has_hung_up_is_not_taken_for_root(
    is_kernel_asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel reports user 0 for a socket that no process has open any more."""
    if not is_kernel_asked:
        monkeypatch.setattr(peer_users, "_ask_kernel", refuse_netlink)
    with accepted("127.0.0.1", NOBODY) as (connection, client):
        client.communicate(timeout=LIMIT_S)
        assert uid_of_peer(connection) is None
        assert "not come from a process" in (PeerUsers().refusal(connection) or "")


@as_root
def test_whom_a_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with accepted("127.0.0.1", NOBODY) as (connection, _):
        assert "nobody" in (PeerUsers().refusal(connection) or "")
        assert "COMFYUI_WORKFLOW_LOCAL_USERS" in (PeerUsers(frozenset({1})).refusal(connection) or "")
        assert PeerUsers(frozenset({NOBODY})).refusal(connection) is None
        assert PeerUsers(None).refusal(connection) is None
        monkeypatch.setattr(peer_users, "_ask_kernel", refuse_netlink)
        monkeypatch.setattr(peer_users, "_read_tables", refuse_netlink)
        assert "cannot be determined" in (PeerUsers().refusal(connection) or "")


@linux_only
def test_it_costs_little_among_many_connections() -> None:
    """One lookup in a hash table of any size. Reading a list of all connections would take milliseconds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pairs = []
        for _ in range(300):
            client = socket.create_connection(listener.getsockname())
            pairs.append((client, listener.accept()[0]))
        began_s = time.process_time()
        for _, connection in pairs:
            assert uid_of_peer(connection) == os.getuid()
        spent_s = time.process_time() - began_s
        for pair in pairs:
            for each in pair:
                each.close()
    assert spent_s / len(pairs) < 0.002


def test_users_are_named_in_the_settings() -> None:
    assert load_settings(local_users="root, 1234").other_users == {0, 1234}
    assert load_settings().other_users == frozenset()
    assert load_settings(local_users="any").other_users is None
    with pytest.raises(ConfigurationError, match=r"LOCAL_USERS.*no user 'nobody-of-that-name'"):
        load_settings(local_users="nobody-of-that-name")


@as_root
def test_another_user_has_nothing_of_the_server(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(GRAPH))
    secret.chmod(0o600)
    body = json.dumps({"ssh_connection": "ssh -p 1 root@127.0.0.1", "workflow_file": str(secret)})
    with ServerProcess(tmp_path) as server:
        port = int(server.url.split(":")[2].partition("/")[0])
        for path in ("/", "/health", "/comfyui/workflow", "/comfyui/instances"):
            answer = ask_as(NOBODY, port, path)
            assert answer.startswith("HTTP/1.1 403 "), path
            assert "COMFYUI_WORKFLOW_LOCAL_USERS" in answer
        assert ask_as(NOBODY, port, "/comfyui/workflow/execute", body=body).startswith("HTTP/1.1 403 ")
        assert ask_as(NOBODY, port, "/comfyui/workflow/inspect", body=body).startswith("HTTP/1.1 403 ")
        assert server.get("")["workflows"] == []
        assert ask_as(0, port, "/health").startswith("HTTP/1.1 200 ")


@as_root
def test_another_user_who_hangs_up_at_once_starts_nothing(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        port = int(server.url.split(":")[2].partition("/")[0])
        body = json.dumps({"ssh_connection": "ssh -p 1 root@127.0.0.1", "workflow": GRAPH})
        head = (
            f"POST /comfyui/workflow/execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        )
        request = f"{head}Content-Type: application/json\r\n\r\n{body}"
        os.kill(server.pid, 19)  # stopped: it accepts nothing until the clients have disconnected
        try:
            for _ in range(5):
                client = start_as(NOBODY, "127.0.0.1", port, request, waits=False)
                client.communicate(timeout=LIMIT_S)
        finally:
            os.kill(server.pid, 18)
        mine = server.execute("ssh -p 1 root@127.0.0.1", GRAPH)
        server.until_finished(mine)  # it was submitted last
        assert [run["workflow_id"] for run in server.get("")["workflows"]] == [mine]


@as_root
@pytest.mark.parametrize("settings", [{"local_users": "nobody"}, {"local_users": "any"}])
def test_a_setting_lets_other_users_in(tmp_path: Path, settings: dict[str, str]) -> None:
    with ServerProcess(tmp_path, **settings) as server:
        port = int(server.url.split(":")[2].partition("/")[0])
        assert ask_as(NOBODY, port, "/health").startswith("HTTP/1.1 200 ")


@as_root
def test_a_token_lets_other_users_in(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, api_token="a secret of both") as server:
        port = int(server.url.split(":")[2].partition("/")[0])
        assert ask_as(NOBODY, port, "/comfyui/workflow").startswith("HTTP/1.1 401 ")
        bearer = "Authorization: Bearer a secret of both"
        assert ask_as(NOBODY, port, "/comfyui/workflow", bearer).startswith("HTTP/1.1 200 ")


@pytest.fixture
def make_port() -> Iterator[Callable[[PortPolicy], tuple[ScriptedServer, int]]]:
    """A local port in front of a server that reports the requests it received."""
    made: list[LocalPorts] = []
    servers: list[ScriptedServer] = []

    def make(policy: PortPolicy) -> tuple[ScriptedServer, int]:
        servers.append(ScriptedServer().__enter__())
        made.append(LocalPorts(Lender(servers[-1].base_url).borrow, policy=policy))
        made[-1].start()
        made[-1].set_ports({"one": PortWanted(name="primary", port=0)})
        state = made[-1].state("one")
        assert state
        return servers[-1], state.port

    yield make
    for ports in made:
        ports.stop()
    for server in servers:
        server.__exit__(None, None, None)


MakePort = Callable[[PortPolicy], tuple[ScriptedServer, int]]


@as_root
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_another_user_has_nothing_of_a_local_port(make_port: MakePort, address: str) -> None:
    server, port = make_port(PortPolicy())
    try:
        socket.create_connection((address, port), LIMIT_S).close()
    except OSError:
        pytest.skip("no ::1 here")
    refused = ask_as(NOBODY, port, "/prompt", address=address)
    assert refused.startswith("HTTP/1.1 403 ")
    assert "COMFYUI_WORKFLOW_LOCAL_USERS" in refused
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    handshake = ask_as(NOBODY, port, "/ws", *upgrade, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    assert handshake.startswith("HTTP/1.1 403 ")
    assert server.requests == []
    assert ask_as(0, port, "/prompt", address=address).startswith("HTTP/1.1 200 ")


@as_root
def test_the_token_opens_a_local_port_and_stays_here(make_port: MakePort) -> None:
    server, port = make_port(PortPolicy(token="a secret of both"))
    assert ask_as(NOBODY, port, "/a", "Authorization: Bearer wrong").startswith("HTTP/1.1 403 ")
    assert ask_as(NOBODY, port, "/b", "Authorization: Bearer a secret of both").startswith("HTTP/1.1 200 ")
    assert ask_as(0, port, "/c", "Authorization: Bearer a secret of both").startswith("HTTP/1.1 200 ")
    assert ask_as(0, port, "/d", "Authorization: Bearer theirs").startswith("HTTP/1.1 200 ")
    assert not any(b"secret" in request for request in server.requests)
    assert any(b"Bearer theirs" in request for request in server.requests)


@as_root
def test_a_setting_opens_local_ports(make_port: MakePort) -> None:
    _, port = make_port(PortPolicy(users=PeerUsers(frozenset({NOBODY}))))
    assert ask_as(NOBODY, port, "/").startswith("HTTP/1.1 200 ")
