"""Tests that a websocket through a local port receives the same as one without it."""

import json
import re
import socket
import struct
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import requests
import websocket

from comfyui_workflow.errors import ConnectionFailed
from comfyui_workflow.proxy import send_queue, upstream
from comfyui_workflow.proxy.model import PortWanted
from comfyui_workflow.proxy.ports import LocalPorts
from tests.proxy.setting import Lender, Setting, connect
from tests.proxy.socket_server import SocketServer
from tests.sandbox.graphs import slow_graph
from tests.sandbox.running_comfyui import LIMIT_S, Listener, RunningComfyUI, wait_until

FLAGS = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}


class Through:
    """The local port, with the interface that a listener uses for its port."""

    def __init__(self, port: int) -> None:
        self.port = port


def listen(setting: Setting, query: str = "") -> Listener:
    return Listener(Through(setting.port), query)  # type: ignore[arg-type]


@pytest.fixture
def scripted() -> Iterator[tuple[SocketServer, int]]:
    """A websocket server that sends what the test sets, behind a local port."""
    with SocketServer() as server:
        ports = LocalPorts(Lender(server.base_url).borrow)
        ports.start()
        ports.set_ports({"one": PortWanted(name="primary", port=0)})
        state = ports.state("one")
        assert state
        yield server, state.port
        ports.stop()


def run_heard(listener: Listener, client_id: str, *, seed: int, post: Any) -> list[Any]:
    """Returns every frame about one prompt, without the parts that differ between prompts."""
    listener.send(FLAGS)
    listener.wait_for_type("feature_flags")
    graph = slow_graph(seed=seed, steps=3)
    graph["1"]["inputs"]["preview"] = "JPEG"
    prompt_id = post("/prompt", {"prompt": graph, "client_id": client_id}).json()["prompt_id"]
    wait_until(lambda: len(listener.of_type("status")) == 1 + 3)
    wait_until(lambda: any(each["node"] is None for each in listener.of_type("executing")))
    frames = [each if isinstance(each, dict) else each.hex() for each in listener.frames]
    text = json.dumps([each for each in frames if isinstance(each, str) or each["type"] != "status"])
    text = text.replace(prompt_id, "ID").replace(prompt_id.encode().hex(), "ID")
    return list(json.loads(re.sub(r'(?<="timestamp": )\d+|(?<="slow_)\d+', "0", text)))


def test_frames_are_the_same(setting: Setting, comfyui: RunningComfyUI) -> None:
    expected = run_heard(Listener(comfyui, "?clientId=direct"), "direct", seed=1, post=comfyui.post)
    heard = run_heard(listen(setting, "?clientId=through"), "through", seed=2, post=setting.post)
    assert heard == expected
    assert sum(isinstance(each, str) for each in heard) >= 3, "previews"


def test_prompts_without_a_client_id_are_heard_of(setting: Setting, comfyui: RunningComfyUI) -> None:
    """Sockets without a client id receive all their events, once; other sockets receive what ComfyUI
    broadcasts."""
    anonymous, another, named = listen(setting), listen(setting), listen(setting, "?clientId=named")
    prompt_id = setting.post("/prompt", {"prompt": slow_graph(steps=3)}).json()["prompt_id"]
    for each in (anonymous, another):
        wait_until(lambda each=each: any(one["node"] is None for one in each.of_type("executing")))
        kinds = [frame["type"] for frame in each.frames if isinstance(frame, dict)]
        about = [kind for kind in kinds if kind not in ("status", "progress_state")]
        assert about == [
            "execution_start",
            "execution_cached",
            "executing",
            *["progress"] * 3,
            "executing",
            "executing",
            "executed",
            "execution_success",
            "executing",
        ]
        wait_until(lambda each=each: len(each.of_type("status")) == 1 + 3, what="put, taken, done")
        assert {one["prompt_id"] for one in each.of_type("execution_start")} == {prompt_id}
    assert len(named.of_type("progress")) == 3
    assert named.of_type("progress_state") == anonymous.of_type("progress_state")
    assert not named.of_type("execution_start")


def test_previews_of_a_prompt_without_a_client_id(setting: Setting) -> None:
    anonymous = listen(setting)
    graph = slow_graph(steps=3)
    graph["1"]["inputs"]["preview"] = "JPEG"
    setting.post("/prompt", {"prompt": graph})
    anonymous.wait_for_type("execution_success")
    assert sum(isinstance(frame, bytes) for frame in anonymous.frames) == 3


def test_a_prompt_put_at_the_instance_itself_is_heard_of_once(
    setting: Setting, comfyui: RunningComfyUI
) -> None:
    anonymous = listen(setting)
    prompt_id = comfyui.submit(slow_graph(steps=3))
    comfyui.wait_for(prompt_id)
    wait_until(lambda: len(anonymous.of_type("status")) == 4)
    assert [each["value"] for each in anonymous.of_type("progress")] == [1, 2, 3]


def test_each_socket_has_a_name_of_its_own(setting: Setting) -> None:
    """The editor uses it as its client id."""
    first, second = listen(setting), listen(setting)
    names = [each.wait_for_type("status")["sid"] for each in (first, second)]
    assert len(set(names)) == 2
    setting.post("/prompt", {"prompt": slow_graph(), "client_id": names[0]})
    first.wait_for_type("execution_success")
    assert not second.of_type("execution_start")


@pytest.mark.parametrize("given", [{}, {"client_id": None}, {"extra_data": {"a": 1}}])
def test_a_client_id_is_given_to_prompts_that_have_none(setting: Setting, given: dict[str, Any]) -> None:
    prompt_id = setting.post("/prompt", {"prompt": slow_graph(), **given}).json()["prompt_id"]
    extra_data = setting.comfyui.wait_for(prompt_id)["prompt"][3]
    assert len(extra_data["client_id"]) == 36
    assert extra_data.get("a") == given.get("extra_data", {}).get("a")


@pytest.mark.parametrize(
    "given", [{"client_id": "mine"}, {"client_id": ""}, {"extra_data": {"client_id": "mine"}}]
)
def test_a_client_id_that_is_there_stays(setting: Setting, given: dict[str, Any]) -> None:
    prompt_id = setting.post("/prompt", {"prompt": slow_graph(), **given}).json()["prompt_id"]
    extra_data = setting.comfyui.wait_for(prompt_id)["prompt"][3]
    assert extra_data["client_id"] == given.get("client_id", "mine")


def test_a_page_that_is_loaded_again_hears(setting: Setting) -> None:
    """ComfyUI unregisters the newest socket of a client id when an older one ends, no matter which
    side closes it first."""
    first = listen(setting, "?clientId=page")
    second = listen(setting, "?clientId=page")
    first.socket.close()
    third = listen(setting, "?clientId=page")
    second.socket.sock.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: setting.state.open_sockets == 1)
    setting.post("/prompt", {"prompt": slow_graph(), "client_id": "page"})
    third.wait_for_type("execution_success")


def test_sockets_of_one_client_id_that_open_at_once_are_each_greeted(setting: Setting) -> None:
    """A page that is loaded twice, or a script with one socket for events and one for previews."""
    with ThreadPoolExecutor(6) as threads:
        for number in range(5):
            opened = [threads.submit(listen, setting, f"?clientId=page{number}") for _ in range(6)]
            for each in opened:
                assert each.result().wait_for_type("status")["sid"] == f"page{number}"


def test_a_socket_is_greeted_before_another_one_takes_its_place(
    scripted: tuple[SocketServer, int],
) -> None:
    server, port = scripted
    first = connect(port)
    with ThreadPoolExecutor(2) as threads:
        others = [threads.submit(connect, port) for _ in range(2)]
        for number in range(3):
            server.wait_for_sockets(number + 1)
            assert len(server.sockets) == number + 1
            server.send(f"hello {number}", number)
        assert first.recv() == "hello 0"
        assert {other.result().recv() for other in others} == {"hello 1", "hello 2"}


def test_a_socket_that_is_not_greeted_makes_room_in_the_end(
    scripted: tuple[SocketServer, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "FIRST_MESSAGE_S", 0.1)
    server, port = scripted
    connect(port)
    second = connect(port)
    server.send("hello", 1)
    assert second.recv() == "hello"


def test_the_socket_of_a_custom_node_is_another_one(scripted: tuple[SocketServer, int]) -> None:
    """It may have the client id of the page too."""
    server, port = scripted
    page, node = connect(port, "/ws?clientId=me"), connect(port, "/node/ws?clientId=me")
    for number, client in enumerate((page, node)):
        server.send(f"to {number}", number)
        assert client.recv() == f"to {number}"
    assert len(server.sockets) == 2


def test_the_instance_is_away(setting: Setting) -> None:
    setting.lender.error = ConnectionFailed("Nothing answers at 10.0.0.1.")
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        listen(setting)
    assert refusal.value.status_code == 503
    assert b"primary cannot be reached: Nothing answers" in (refusal.value.resp_body or b"")


def test_comfyuis_own_refusal_is_passed_on(setting: Setting) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        connect(setting.port, origin="http://localhost:1")
    assert refusal.value.status_code == 403


def test_frames_of_any_size_down_and_of_four_megabytes_up(scripted: tuple[SocketServer, int]) -> None:
    server, port = scripted
    client = connect(port, "/ws?clientId=me")
    server.send(b"\x00\x01" * 3_000_000)
    server.send("ü" * 1_000_000)
    assert client.recv() == b"\x00\x01" * 3_000_000
    assert client.recv() == "ü" * 1_000_000
    client.send_binary(b"x" * (4 * 1024 * 1024 - 1))
    client.send("hello")
    wait_until(lambda: len(server.said) == 2)
    with suppress(ConnectionError):  # it closes the connection during the send
        client.send_binary(b"x" * (4 * 1024 * 1024 + 1))
        assert client.recv_data()[1][:2] == struct.pack(">H", 1009)
    wait_until(lambda: server.closed_with)
    assert len(server.said) == 2


def test_pings_are_answered(scripted: tuple[SocketServer, int]) -> None:
    client = connect(scripted[1])
    client.ping("still there?")
    assert client.recv_data_frame(control_frame=True)[1].data == b"still there?"


@pytest.mark.parametrize("code", [1000, 1008, 1011, 4001])
def test_comfyui_closes(scripted: tuple[SocketServer, int], code: int) -> None:
    server, port = scripted
    client = connect(port)
    server.send("last words")
    server.close(code, b"because")
    assert client.recv() == "last words"
    opcode, data = client.recv_data()
    assert (opcode, data) == (websocket.ABNF.OPCODE_CLOSE, struct.pack(">H", code) + b"because")


def test_the_client_closes(scripted: tuple[SocketServer, int]) -> None:
    server, port = scripted
    connect(port).close(1000)
    wait_until(lambda: len(server.closed_with) == 1)
    assert server.closed_with == [1000]


def test_the_handshake_travels(scripted: tuple[SocketServer, int]) -> None:
    server, port = scripted
    client = connect(
        port, "/ws/other?x=%20&y", subprotocols=["first", "second"], cookie="a=1", header=["X-Mine: here"]
    )
    assert client.subprotocol == "second"
    server.wait_for_sockets(1)
    request = server.requests[0]
    assert request.raw_path == "/ws/other?x=%20&y"
    assert (request.headers["Cookie"], request.headers["X-Mine"]) == ("a=1", "here")
    assert request.headers["Host"] == f"127.0.0.1:{port}"
    server.cut()
    opcode, _ = client.recv_data()
    assert opcode == websocket.ABNF.OPCODE_CLOSE, "only ComfyUI's own socket is opened again"


def submitted(server: SocketServer, port: int) -> Future[int]:
    """Returns the status; the prompt has arrived."""
    graph = {"1": {"class_type": "A", "inputs": {}}}
    body = {"prompt": graph, "client_id": "me", "prompt_id": str(uuid.uuid4())}
    answered: Future[int] = Future()

    def post() -> None:
        answer = requests.post(f"http://127.0.0.1:{port}/prompt", json=body, timeout=LIMIT_S)
        answered.set_result(answer.status_code)

    threading.Thread(target=post, daemon=True).start()
    wait_until(lambda: body in server.said, what="the prompt")
    return answered


def test_what_becomes_of_a_prompt_is_told_after_its_answer(scripted: tuple[SocketServer, int]) -> None:
    server, port = scripted
    mine, other = connect(port), connect(port, "/ws?clientId=you")
    server.wait_for_sockets(2)
    answered = submitted(server, port)
    ended = json.dumps({"type": "executing", "data": {"node": None, "prompt_id": "p"}})
    server.send(ended, 0)
    server.send("to the other", 1)
    assert other.recv() == "to the other"
    mine.settimeout(0.2)
    with pytest.raises(websocket.WebSocketTimeoutException):
        mine.recv()
    assert not answered.done()
    server.answer_prompts()
    assert answered.result(LIMIT_S) == 200
    mine.settimeout(LIMIT_S)
    assert mine.recv() == ended
    server.send("and so on", 0)
    assert mine.recv() == "and so on"


def test_an_answer_that_does_not_come_keeps_nothing_back_for_long(
    scripted: tuple[SocketServer, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "LONGEST_HOLD_S", 0.05)
    server, port = scripted
    mine = connect(port)
    answered = submitted(server, port)
    server.send("first", 0)
    assert mine.recv() == "first"
    server.send("second", 0)
    assert mine.recv() == "second"
    assert not answered.done()
    server.answer_prompts()
    assert answered.result(LIMIT_S) == 200


def test_who_does_not_read_holds_up_nobody(
    scripted: tuple[SocketServer, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames are stored for a while, then the client is disconnected; the other clients receive everything at
    once."""
    monkeypatch.setattr(send_queue, "LARGEST_BACKLOG_BYTES", 8 * 1024 * 1024)
    server, port = scripted
    sleeper = connect(port, "/ws?clientId=sleeper", sockopt=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])
    server.wait_for_sockets(1)
    reader = connect(port, "/ws?clientId=reader")
    for number in range(40):
        with suppress(ConnectionError):  # after it was disconnected
            server.send(b"x" * 1024 * 1024, number=0)
        server.send(str(number), number=1)
        assert reader.recv() == str(number)
    wait_until(lambda: server.closed_with, what="the sleeper is cut off")
    with pytest.raises((ConnectionError, websocket.WebSocketException)):
        while True:
            sleeper.recv()
