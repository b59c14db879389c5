"""Tests of broken connections under a client's websocket: it stays open, and receives the end of every
prompt."""

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import websocket

from comfyui_workflow.proxy import lease, registry, upstream
from comfyui_workflow.proxy.model import PortWanted
from comfyui_workflow.proxy.ports import LocalPorts
from tests.proxy.setting import Lender, Setting, connect
from tests.proxy.socket_server import SocketServer
from tests.proxy.test_sockets import FLAGS, listen
from tests.sandbox.graphs import slow_graph
from tests.sandbox.running_comfyui import Listener, wait_until


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "FAILURE_CACHE_S", 0.1)
    monkeypatch.setattr(registry, "DEAF_AFTER_S", 0.3)


def ends(listener: Listener) -> list[dict[str, Any]]:
    return [each for each in listener.of_type("executing") if each["node"] is None]


@pytest.mark.parametrize("query", ["", "?clientId=me"])
def test_a_prompt_that_goes_on_meanwhile(setting: Setting, query: str) -> None:
    setting.comfyui.pace.allow(2)
    listener = listen(setting, query)
    sid = listener.wait_for_type("status")["sid"]
    body = {"prompt": slow_graph(steps=4)} | ({"client_id": "me"} if query else {})
    setting.post("/prompt", body)
    wait_until(lambda: len(listener.of_type("progress")) == 2)
    setting.relay.cut()
    wait_until(lambda: sum("sid" in each for each in listener.of_type("status")) == 2, what="it is back")
    wait_until(lambda: len(listener.of_type("executing")) == 2, what="it is told what is running")
    assert listener.of_type("executing")[0] == listener.of_type("executing")[1]
    setting.comfyui.pace.allow(100)
    wait_until(lambda: ends(listener))
    assert [each["value"] for each in listener.of_type("progress")][-1] == 4
    assert {each["sid"] for each in listener.of_type("status") if "sid" in each} == {sid}
    assert len(listener.of_type("execution_success")) == len(ends(listener)) == 1
    assert not listener.is_over


@pytest.mark.parametrize("query", ["", "?clientId=me"])
def test_a_prompt_that_ends_meanwhile(setting: Setting, query: str) -> None:
    """ComfyUI replays nothing: a client that waits for the end would wait for ever."""
    setting.comfyui.pace.allow(2)
    listener = listen(setting, query)
    body = {"prompt": slow_graph(steps=4)} | ({"client_id": "me"} if query else {})
    prompt_id = setting.post("/prompt", body).json()["prompt_id"]
    wait_until(lambda: len(listener.of_type("progress")) == 2)
    setting.relay.is_open = False
    setting.relay.cut()
    setting.comfyui.pace.allow(100)
    setting.comfyui.wait_for(prompt_id)
    setting.relay.is_open = True
    wait_until(lambda: ends(listener))
    kinds = [each["type"] for each in listener.frames if isinstance(each, dict)]
    assert kinds.count("execution_start") == kinds.count("execution_success") == kinds.count("executed") == 1
    assert listener.of_type("executed")[0]["output"]["images"][0]["filename"].startswith("slow_")
    assert listener.of_type("executed")[0]["display_node"] == "3"
    assert ends(listener) == [{"node": None, "prompt_id": prompt_id}]
    assert not listener.is_over


def test_a_prompt_that_fails_meanwhile(setting: Setting) -> None:
    setting.comfyui.faults(hold=True, fail_class={"ImageInvert": "broken"})
    listener = listen(setting, "?clientId=me")
    answer = setting.post("/prompt", {"prompt": slow_graph(), "client_id": "me"})
    setting.relay.is_open = False
    setting.relay.cut()
    setting.comfyui.faults(hold=False)
    setting.comfyui.wait_for(answer.json()["prompt_id"])
    setting.relay.is_open = True
    wait_until(lambda: ends(listener))
    assert len(listener.of_type("execution_start")) == 1
    assert listener.of_type("execution_error")[0]["exception_message"].strip() == "broken"
    assert not listener.of_type("execution_success")


def test_a_prompt_that_is_lost_meanwhile(setting: Setting) -> None:
    """ComfyUI was restarted: the client's socket is closed, since nothing more will come."""
    setting.comfyui.faults(hold=True)
    client = connect(setting.port, "/ws?clientId=me")
    client.recv()
    setting.post("/prompt", {"prompt": slow_graph(), "client_id": "me"})
    setting.comfyui.faults(restart={"down_s": 0.1})
    while True:
        opcode, data = client.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            break
    assert data[:2] == struct.pack(">H", 1012)
    assert b"lost" in data


def test_a_restart_without_prompts_is_survived(setting: Setting) -> None:
    listener = listen(setting, "?clientId=me")
    listener.wait_for_type("status")
    setting.comfyui.faults(restart={"down_s": 0.1})
    wait_until(lambda: len(listener.of_type("status")) == 2)
    setting.post("/prompt", {"prompt": slow_graph(), "client_id": "me"})
    listener.wait_for_type("execution_success")


def test_the_flags_are_said_again_and_answered_once(setting: Setting) -> None:
    listener = listen(setting, "?clientId=me")
    listener.send(FLAGS)
    listener.wait_for_type("feature_flags")
    setting.relay.cut()
    wait_until(lambda: len(listener.of_type("status")) == 2)
    graph = slow_graph(steps=3)
    graph["1"]["inputs"]["preview"] = "JPEG"
    setting.post("/prompt", {"prompt": graph, "client_id": "me"})
    wait_until(lambda: ends(listener))
    previews = [each for each in listener.frames if isinstance(each, bytes)]
    assert previews[-1][:4] == b"\x00\x00\x00\x04", "with metadata, as asked for"
    assert len(listener.of_type("feature_flags")) == 1


def test_a_deaf_socket_is_noticed_by_its_silence(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """During a prompt: ComfyUI may unregister the socket long after it was opened."""
    monkeypatch.setattr(upstream, "SILENCE_S", 0.5)
    setting.comfyui.pace.allow(1)
    listener = listen(setting, "?clientId=me")
    setting.post("/prompt", {"prompt": slow_graph(), "client_id": "me"})
    listener.wait_for_type("progress")
    setting.relay.cut()
    wait_until(lambda: len(listener.of_type("executing")) == 2)
    setting.comfyui.faults(deaf_websockets=True)
    setting.comfyui.pace.allow(100)
    wait_until(lambda: ends(listener))
    assert len(listener.of_type("execution_success")) == 1


def test_it_is_given_up_in_the_end(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "REOPEN_FOR_S", 1.0)
    client = connect(setting.port, "/ws?clientId=me")
    client.recv()
    setting.relay.is_open = False
    setting.relay.cut()
    opcode, data = client.recv_data()
    assert (opcode, data[:2]) == (websocket.ABNF.OPCODE_CLOSE, struct.pack(">H", 1012))
    assert setting.state.trouble is not None


@pytest.fixture
def scripted() -> Iterator[tuple[SocketServer, int]]:
    with SocketServer() as server:
        ports = LocalPorts(Lender(server.base_url).borrow)
        ports.start()
        ports.set_ports({"one": PortWanted(name="primary", port=0)})
        state = ports.state("one")
        assert state
        yield server, state.port
        ports.stop()


def test_the_old_socket_is_given_time(scripted: tuple[SocketServer, int]) -> None:
    server, port = scripted
    client = connect(port, "/ws?clientId=me&x=1")
    server.cut()
    server.wait_for_sockets(2)
    server.send("back")
    assert client.recv() == "back"
    assert [each.raw_path for each in server.requests] == ["/ws?clientId=me&x=1"] * 2


def test_what_comfyui_called_it_is_kept(scripted: tuple[SocketServer, int]) -> None:
    server, port = scripted
    client = connect(port, "/ws?x=1&clientId=")
    greeting = json.dumps({"type": "status", "data": {"status": {}, "sid": "chosen"}})
    server.send(greeting, number=0)
    assert client.recv() == greeting
    server.cut(0)
    wait_until(lambda: any("clientId=chosen" in each.raw_path for each in server.requests))
    assert any(each.raw_path == "/ws?x=1&clientId=chosen" for each in server.requests)


def opened_again(setting: Setting) -> Listener:
    listener = listen(setting, "?clientId=me")
    listener.wait_for_type("status")
    setting.relay.cut()
    wait_until(lambda: len(listener.of_type("status")) == 2)
    return listener


def after_another(setting: Setting) -> Listener:
    listen(setting, "?clientId=me").wait_for_type("status")
    listener = listen(setting, "?clientId=me")
    listener.wait_for_type("status")
    return listener


@pytest.mark.parametrize("open_one", [opened_again, after_another])
def test_a_deaf_socket_is_noticed(setting: Setting, open_one: Callable[[Setting], Listener]) -> None:
    """ComfyUI unregistered it when another socket of its client id ended; the next prompt shows that."""
    listener = open_one(setting)
    thief = Listener(setting.comfyui, "?clientId=me")
    thief.wait_for_type("status")
    thief.socket.close()
    wait_until(lambda: thief.is_over)
    answer = setting.post("/prompt", {"prompt": slow_graph(), "client_id": "me"})
    setting.comfyui.wait_for(answer.json()["prompt_id"])
    wait_until(lambda: ends(listener))
    assert len(listener.of_type("execution_success")) == 1
