"""Tests that ports open and close as configured, whatever state their instances are in."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import requests

from comfyui_workflow.errors import ConnectionFailed, Stopped
from comfyui_workflow.proxy import lease, ports
from comfyui_workflow.proxy.model import Borrow, PortWanted
from comfyui_workflow.proxy.ports import LocalPorts
from tests.proxy.setting import Lender, Setting, TcpRoute, connect
from tests.proxy.test_sockets import listen
from tests.sandbox.graphs import slow_graph
from tests.sandbox.running_comfyui import LIMIT_S, RunningComfyUI, wait_until


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """A port that another program uses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


MakePorts = Callable[[Borrow], LocalPorts]


@pytest.fixture
def make_ports() -> Iterator[MakePorts]:
    """Ports that are not started; they are stopped at the end, even if the test fails."""
    made: list[LocalPorts] = []

    def make(borrow: Borrow) -> LocalPorts:
        made.append(LocalPorts(borrow))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def local_ports(comfyui: RunningComfyUI, make_ports: MakePorts) -> LocalPorts:
    made = make_ports(Lender(comfyui.url("")).borrow)
    made.start()
    return made


def state_of(local_ports: LocalPorts, instance_id: str) -> ports.PortState:
    state = local_ports.state(instance_id)
    assert state
    return state


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("local port")]


def test_nothing_is_opened_before_it_is_wanted(setting: Setting) -> None:
    assert setting.state.is_listening
    assert setting.state.trouble is None
    assert setting.lender.lent == []
    setting.get("/prompt")
    setting.get("/prompt")
    assert setting.lender.lent == ["one"]


def test_only_this_machine_is_answered(setting: Setting) -> None:
    setting.get("/prompt")
    own = [
        line.split()[1] for line in _listening_addresses() if line.split()[1].endswith(f":{setting.port:04X}")
    ]
    assert own, "it listens"
    assert all(each.startswith(("0100007F:", "00000000000000000000000001000000:")) for each in own)


def test_by_the_name_localhost_too(setting: Setting) -> None:
    assert requests.get(f"http://localhost:{setting.port}/prompt", timeout=LIMIT_S).status_code == 200


def test_a_port_that_another_program_has(
    local_ports: LocalPorts, taken: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = taken.getsockname()[1]
    wanted = {"one": PortWanted(name="primary", port=port), "two": PortWanted(name="backup", port=0)}
    local_ports.set_ports(wanted)
    state = state_of(local_ports, "one")
    assert (state.is_listening, state.port) == (False, port)
    assert state.trouble and state.trouble.startswith(
        f"Port {port} of this machine cannot be opened for primary: "
    )
    assert state_of(local_ports, "two").is_listening
    taken.close()
    local_ports.set_ports(wanted)
    assert state_of(local_ports, "one").is_listening
    assert state_of(local_ports, "one").trouble is None


def test_a_port_that_becomes_free_is_taken(
    comfyui: RunningComfyUI, make_ports: MakePorts, taken: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "LISTEN_AGAIN_AFTER_S", 0.05)
    local_ports = make_ports(Lender(comfyui.url("")).borrow)
    local_ports.set_ports({"one": PortWanted(name="primary", port=taken.getsockname()[1])})
    local_ports.start()
    assert not state_of(local_ports, "one").is_listening
    taken.close()
    wait_until(lambda: state_of(local_ports, "one").is_listening)


def test_ports_follow_what_is_wanted(local_ports: LocalPorts) -> None:
    wanted = {name: PortWanted(name=name, port=0) for name in ("a", "b")}
    local_ports.set_ports(wanted)
    ports_before = {name: state_of(local_ports, name).port for name in wanted}
    with requests.Session() as session:
        session.get(f"http://127.0.0.1:{ports_before['a']}/prompt", timeout=LIMIT_S).raise_for_status()
        local_ports.set_ports(wanted)
        assert {name: state_of(local_ports, name).port for name in wanted} == ports_before
        swapped = {
            "a": PortWanted(name="a", port=ports_before["b"]),
            "b": PortWanted(name="b", port=ports_before["a"]),
        }
        local_ports.set_ports(swapped)
        assert all(state_of(local_ports, name).is_listening for name in wanted)
        session.get(f"http://127.0.0.1:{ports_before['a']}/prompt", timeout=LIMIT_S).raise_for_status()
    local_ports.set_ports({"a": swapped["a"]})
    assert local_ports.state("b") is None
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{ports_before['a']}/prompt", timeout=LIMIT_S)


def test_an_instance_that_has_moved(
    comfyui: RunningComfyUI, make_ports: MakePorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "OPEN_TIMEOUT_S", 0.2)
    lender = Lender("http://127.0.0.1:1")
    local_ports = make_ports(lender.borrow)
    local_ports.start()
    local_ports.set_ports({"one": PortWanted(name="one", port=0, address="old")})
    port = state_of(local_ports, "one").port
    assert requests.get(f"http://127.0.0.1:{port}/prompt", timeout=LIMIT_S).status_code == 503
    lender.base_url = comfyui.url("")
    local_ports.set_ports({"one": PortWanted(name="one", port=port, address="new")})
    assert requests.get(f"http://127.0.0.1:{port}/prompt", timeout=LIMIT_S).status_code == 200


def test_a_slow_instance_delays_no_other(
    comfyui: RunningComfyUI, make_ports: MakePorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    @contextmanager
    def borrow(instance_id: str) -> Iterator[TcpRoute]:
        if instance_id == "slow":
            go_on.wait(LIMIT_S)
        yield TcpRoute(comfyui.url(""))

    local_ports = make_ports(borrow)
    local_ports.start()
    local_ports.set_ports({name: PortWanted(name=name, port=0) for name in ("slow", "quick")})
    slow, quick = (
        f"http://127.0.0.1:{state_of(local_ports, name).port}/prompt" for name in ("slow", "quick")
    )
    with ThreadPoolExecutor(30) as threads:
        waiting = [threads.submit(requests.get, slow, timeout=LIMIT_S) for _ in range(30)]
        wait_until(lambda: state_of(local_ports, "slow").open_requests == 30)
        assert requests.get(quick, timeout=LIMIT_S).status_code == 200
        assert state_of(local_ports, "slow").open_requests == 30
        assert len(our_threads()) == 3, "one loop, and one for each way"
        monkeypatch.setattr(lease, "OPEN_TIMEOUT_S", 0.05)
        given_up = requests.get(slow, timeout=LIMIT_S)
        assert given_up.status_code == 503
        assert "no connection after" in given_up.json()["error"]["message"]
        assert "no connection after" in (state_of(local_ports, "slow").trouble or "")
        go_on.set()
        assert [answer.result().status_code for answer in waiting] == [200] * 30
    assert requests.get(slow, timeout=LIMIT_S).status_code == 200
    assert state_of(local_ports, "slow").trouble is None


def test_connections_that_come_at_once_all_wait_to_be_accepted(setting: Setting) -> None:
    """The kernel drops the first packet of connections beyond the backlog; it comes again after a second."""
    assert setting.get("/prompt").status_code == 200
    go_on = threading.Event()
    loop = setting.ports._loop
    assert loop is not None
    loop.call_soon_threadsafe(go_on.wait, LIMIT_S)
    with ExitStack() as stack:
        try:
            for _ in range(300):
                address = ("127.0.0.1", setting.port)
                stack.enter_context(socket.create_connection(address, timeout=0.9))
        finally:
            go_on.set()


def test_an_idle_way_is_given_back(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "IDLE_TIMEOUT_S", 0.2)
    listener = listen(setting)
    listener.wait_for_type("status")
    setting.get("/prompt")
    time.sleep(0.4)
    assert setting.lender.out_now == 1, "a socket needs it"
    listener.socket.close()
    wait_until(lambda: setting.lender.out_now == 0)
    assert setting.get("/prompt").status_code == 200
    assert setting.lender.lent == ["one", "one"]


def test_stopping_closes_everything(setting: Setting) -> None:
    setting.comfyui.pace.allow(0)
    listener, another = listen(setting), listen(setting, "?clientId=me")
    setting.post("/prompt", {"prompt": slow_graph()})
    url = setting.url("/prompt")
    setting.ports.stop()
    wait_until(lambda: listener.is_over and another.is_over)
    wait_until(lambda: setting.lender.out_now == 0)
    wait_until(lambda: our_threads() == [])
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=LIMIT_S)
    setting.ports.stop()


def test_stopping_amid_everything(comfyui: RunningComfyUI, make_ports: MakePorts) -> None:
    """With a session that is still being opened, a broken connection, and a client that waits for a
    response."""
    leave = threading.Event()

    @contextmanager
    def borrow(instance_id: str) -> Iterator[TcpRoute]:
        match instance_id:
            case "opening":
                leave.wait(LIMIT_S)
                raise Stopped("The server is stopping.")
            case "broken":
                raise ConnectionFailed("Nothing there.")
        yield TcpRoute(comfyui.url(""))

    local_ports = make_ports(borrow)
    local_ports.start()
    local_ports.set_ports({name: PortWanted(name=name, port=0) for name in ("opening", "broken", "frozen")})
    comfyui.faults(freeze_s=3)
    for name in ("opening", "broken", "frozen"):
        url = f"http://127.0.0.1:{state_of(local_ports, name).port}/prompt"
        threading.Thread(target=_ask, args=(url,), daemon=True).start()
    wait_until(lambda: state_of(local_ports, "frozen").open_requests == 1)
    wait_until(lambda: state_of(local_ports, "opening").open_requests == 1)
    local_ports.stop()
    assert "local port opening" in our_threads(), "it was not waited for"
    leave.set()
    wait_until(lambda: our_threads() == [])


def test_a_port_that_is_stopped_at_once(comfyui: RunningComfyUI, make_ports: MakePorts) -> None:
    local_ports = make_ports(Lender(comfyui.url("")).borrow)
    local_ports.stop()
    local_ports.start()
    local_ports.stop()
    wait_until(lambda: our_threads() == [])


def test_sockets_are_counted(setting: Setting) -> None:
    client = connect(setting.port)
    assert (setting.state.open_requests, setting.state.open_sockets) == (0, 1)
    client.close()
    wait_until(lambda: setting.state.open_sockets == 0)


def _ask(url: str) -> None:
    with suppress(requests.RequestException):
        requests.get(url, timeout=LIMIT_S)


def _listening_addresses() -> list[str]:
    lines: list[str] = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError), Path(table).open() as file:
            lines += [line for line in file if line.split()[3] == "0A"]
    return lines
