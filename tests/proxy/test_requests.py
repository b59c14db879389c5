"""Tests that requests and responses through a local port are the same as without it, byte for byte."""

import asyncio
import gzip
import http.client
import io
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import pytest
import requests
from PIL import Image

from comfyui_workflow.access.origins import Origin
from comfyui_workflow.errors import AuthenticationFailed, NothingListens
from comfyui_workflow.proxy import lease, plain_requests, submit
from comfyui_workflow.proxy.error_responses import InstanceUnreachable
from comfyui_workflow.proxy.model import PortPolicy, PortWanted
from comfyui_workflow.proxy.ports import LocalPorts
from tests.proxy.scripted_server import ScriptedServer
from tests.proxy.setting import Lender, Setting, TcpRoute, connect, local_port
from tests.sandbox.graphs import quick_graph
from tests.sandbox.running_comfyui import LIMIT_S, RunningComfyUI, wait_until

CHANGING = {"Date", "Transfer-Encoding", "Connection"}


@pytest.fixture
def scripted() -> Iterator[tuple[ScriptedServer, int]]:
    """A server that answers what the test sets, behind a local port."""
    with ScriptedServer() as server:
        ports = LocalPorts(Lender(server.base_url).borrow)
        ports.start()
        ports.set_ports({"one": PortWanted(name="primary", port=0)})
        state = ports.state("one")
        assert state
        yield server, state.port
        ports.stop()


def both(
    setting: Setting, method: str, path: str, **options: Any
) -> tuple[requests.Response, requests.Response]:
    answers = [
        requests.request(method, url, timeout=LIMIT_S, allow_redirects=False, **options)
        for url in (setting.comfyui.url(path), setting.url(path))
    ]
    return answers[0], answers[1]


def assert_same(direct: requests.Response, through: requests.Response) -> None:
    assert through.status_code == direct.status_code
    assert through.content == direct.content
    assert _lasting(through) == _lasting(direct)


def _lasting(answer: requests.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in CHANGING}


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("GET", "/", {}),
        ("GET", "/object_info", {}),
        ("GET", "/object_info/SaveImage", {}),
        ("GET", "/features", {}),
        ("GET", "/api/queue", {}),
        ("GET", "/history/nobody%2Fknows%20it", {}),
        ("HEAD", "/object_info", {}),
        ("GET", "/nowhere", {}),
        ("OPTIONS", "/prompt", {}),
        ("GET", "/view?filename=picture.png&type=input", {}),
        ("HEAD", "/view?filename=picture.png&type=input", {}),
        ("GET", "/view?filename=picture.png&type=input", {"headers": {"Range": "bytes=100-299"}}),
        ("GET", "/view?filename=picture.png&type=input", {"headers": {"Range": "bytes=999999-"}}),
        ("GET", "/view?filename=..%2Fpicture.png&type=input", {}),
        ("GET", "/view?filename=absent.png", {}),
        ("POST", "/prompt", {"json": {}}),
        ("POST", "/prompt", {"data": "no json"}),
        ("POST", "/prompt", {"json": {"prompt": {"1": {"class_type": "NoSuchNode", "inputs": {}}}}}),
        ("POST", "/prompt", {"json": {"prompt": None}}),
        ("POST", "/prompt", {"json": [1]}),
        ("POST", "/queue", {"json": {"delete": ["x"]}}),
        ("POST", "/interrupt", {}),
        ("POST", "/upload/image", {"data": {"image": "no file"}}),
    ],
)
def test_answers_are_the_same(setting: Setting, method: str, path: str, options: dict[str, Any]) -> None:
    Image.effect_noise((64, 64), 50).save(setting.comfyui.folders.input_dir / "picture.png")
    assert_same(*both(setting, method, path, **options))


def test_what_has_not_changed_is_not_sent_again(setting: Setting) -> None:
    Image.new("RGB", (8, 8)).save(setting.comfyui.folders.input_dir / "picture.png")
    path = "/view?filename=picture.png&type=input"
    tag = setting.get(path).headers["Etag"]
    direct, through = both(setting, "GET", path, headers={"If-None-Match": tag})
    assert through.status_code == 304
    assert_same(direct, through)


def test_a_large_upload_and_its_way_back(setting: Setting) -> None:
    content = os.urandom(30 * 1024 * 1024)
    answer = requests.post(setting.url("/upload/image"), files={"image": ("big.bin", content)}, timeout=60)
    assert answer.json() == {"name": "big.bin", "subfolder": "", "type": "input"}
    assert (setting.comfyui.folders.input_dir / "big.bin").read_bytes() == content
    assert setting.get("/view?filename=big.bin&type=input").content == content


def test_an_upload_in_chunks(setting: Setting) -> None:
    for path in ("/prompt", "/free", "/upload/image"):
        direct, through = both(setting, "POST", path, data=_Pieces())
        assert_same(direct, through)


def test_what_is_too_large_is_refused_by_comfyui(setting: Setting) -> None:
    content = b"x" * (101 * 1024 * 1024)
    direct, through = both(setting, "POST", "/upload/image", files={"image": ("big.bin", content)})
    assert direct.status_code == 413
    assert_same(direct, through)


def test_a_client_that_asks_before_it_sends(setting: Setting) -> None:
    """curl does this (`Expect: 100-continue`) with large files."""
    body = json.dumps({"delete": ["x"]}).encode()
    with socket.create_connection(("127.0.0.1", setting.port), timeout=LIMIT_S) as client:
        client.sendall(
            b"POST /queue HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


def test_requests_travel_as_they_are(scripted: tuple[ScriptedServer, int]) -> None:
    server, port = scripted
    lines = (
        b"GET /a%2Fb//c/../%7Euser/?x=%20+&&y=%zz&x=2 HTTP/1.1",
        b"Host: localhost:8188",
        b"X-Twice: one",
        b"X-Twice: two",
        b"Cookie: a=1; b=2",
        b"Accept-Encoding: br",
        b"X-Odd-CASE: \xc3\xbc",
    )
    _exchange(port, b"\r\n".join((*lines, b"Connection: close, X-Mine", b"X-Mine: here", b"\r\n")))
    assert server.requests[0].split(b"\r\n")[: len(lines)] == list(lines)
    assert b"X-Mine" not in server.requests[0]
    assert b"User-Agent" not in server.requests[0]


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"a=1; comfyui_workflow_login=1.2; b=2", b"\r\nCookie: a=1; b=2\r\n"),
        (b"comfyui_workflow_login=1.2", None),
    ],
)
def test_an_instance_is_not_told_how_a_browser_is_logged_in_here(
    scripted: tuple[ScriptedServer, int], sent: bytes, told: bytes | None
) -> None:
    server, port = scripted
    lines = (b"GET / HTTP/1.1", b"Host: localhost:8188", b"Cookie: " + sent, b"Connection: close", b"\r\n")
    _exchange(port, b"\r\n".join(lines))
    assert b"login" not in server.requests[0]
    assert told in server.requests[0] if told else b"Cookie" not in server.requests[0]


def test_answers_travel_as_they_are(scripted: tuple[ScriptedServer, int]) -> None:
    server, port = scripted
    packed = gzip.compress(b"hello")
    server.answer = (
        b"HTTP/1.1 207 Quite Special\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Encoding: gzip\r\n"
        b"Content-Type: x/y\r\nLocation: http://elsewhere/\r\nContent-Length: %d\r\n\r\n"
        % len(packed)
        + packed
    )
    answer = _exchange(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.startswith(server.answer.partition(b"\r\n\r\n")[0])
    assert answer.endswith(b"\r\n\r\n" + packed)


def test_a_short_answer_comes_in_one_piece(setting: Setting) -> None:
    """ComfyUI sends the head of a file and its content apart."""
    (setting.comfyui.folders.output_dir / "picture.png").write_bytes(content := os.urandom(3000))
    with socket.create_connection(("127.0.0.1", setting.port), timeout=LIMIT_S) as client:
        client.sendall(b"GET /view?filename=picture.png HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head, _, body = client.recv(65536).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and body == content


def test_a_redirect_is_the_clients_to_follow(scripted: tuple[ScriptedServer, int]) -> None:
    server, port = scripted
    server.answer = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    answer = requests.get(f"http://127.0.0.1:{port}/", timeout=LIMIT_S, allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (302, "http://127.0.0.1:1/")


@pytest.mark.parametrize("head", [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_half_an_answer_never_looks_whole(
    scripted: tuple[ScriptedServer, int], head: bytes, version: bytes
) -> None:
    server, port = scripted
    body = b"5\r\nhello\r\n" if b"chunked" in head else b"hello"
    server.answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" + head + b"\r\n" + body
    request = b"GET / HTTP/%s\r\nHost: localhost\r\nConnection: close\r\n\r\n" % version
    try:
        answer = _exchange(port, request)
    except ConnectionResetError:
        return
    assert version == b"1.1"
    parsed = http.client.HTTPResponse(_Recorded(answer))  # type: ignore[arg-type]
    parsed.begin()
    with pytest.raises(http.client.IncompleteRead):
        parsed.read()


@pytest.mark.parametrize("path", ["/prompt", "/api/prompt", "/queue"])
def test_what_does_something_is_never_sent_twice(
    scripted: tuple[ScriptedServer, int], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This includes a prompt, if it cannot be found out whether ComfyUI has it."""
    monkeypatch.setattr(submit, "RESUBMIT_FOR_S", 0.0)
    server, port = scripted
    server.answer = None
    answer = requests.post(f"http://127.0.0.1:{port}{path}", json={"prompt": quick_graph()}, timeout=LIMIT_S)
    assert answer.status_code == 502
    assert answer.json()["error"]["type"] == "answer_lost"
    assert "may or may not" in answer.json()["error"]["message"]
    assert "Retry-After" not in answer.headers
    assert len([each for each in server.requests if each.startswith(b"POST")]) == 1


def test_what_only_asks_is_asked_again(setting: Setting) -> None:
    """A reused connection may be dead, and the tunnel below it, too."""
    with requests.Session() as session:
        assert session.get(setting.url("/prompt"), timeout=LIMIT_S).status_code == 200
        setting.relay.cut()
        assert session.get(setting.url("/prompt"), timeout=LIMIT_S).status_code == 200
        setting.relay.cut()
        answer = session.post(setting.url("/prompt"), json={"prompt": quick_graph()}, timeout=LIMIT_S)
        assert answer.status_code == 200
    setting.comfyui.wait_for(answer.json()["prompt_id"])
    assert len(setting.comfyui.executions()) == 2


def test_a_new_way_is_borrowed_where_the_old_one_broke(
    setting: Setting, comfyui: RunningComfyUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is noticed before the prompt is sent, if there was no response for a while."""
    monkeypatch.setattr(lease, "PING_VALID_S", 0.0)
    monkeypatch.setattr(lease, "IDLE_TIMEOUT_S", 1000.0)
    assert setting.get("/prompt").status_code == 200
    setting.relay.is_open = False
    setting.relay.cut()
    setting.lender.base_url = comfyui.url("")
    answer = setting.post("/prompt", {"prompt": quick_graph()})
    assert answer.status_code == 200
    assert setting.lender.lent == ["one", "one"]
    wait_until(lambda: setting.lender.out_now == 1, what="the old one is given back at once")


def test_requests_that_come_at_once_share_a_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    pings = []

    async def ping(upstream: lease.Upstream) -> None:
        pings.append(upstream)
        await asyncio.sleep(0)
        raise TimeoutError

    async def burst() -> list[BaseException | None]:
        thread = lease.SessionThread(partial(Lender("").borrow, "one"), "one")
        upstream = lease.Upstream(thread, TcpRoute(""), {})
        outcomes = await asyncio.gather(*(upstream.ping() for _ in range(5)), return_exceptions=True)
        await upstream.close()
        return outcomes

    monkeypatch.setattr(lease.Upstream, "_ping", ping)
    assert [type(each) for each in asyncio.run(burst())] == [TimeoutError] * 5
    assert len(pings) == 1


@pytest.mark.parametrize(("keepalive_s", "connections"), [(60.0, 2), (0.0, 3)])
def test_what_does_something_reuses_a_connection_that_was_just_in_use(
    comfyui: RunningComfyUI, keepalive_s: float, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One connection is that of the ping."""
    monkeypatch.setattr(lease, "PING_VALID_S", 1000.0)
    monkeypatch.setattr(plain_requests, "FRESH_FOR_S", keepalive_s)
    with local_port(comfyui) as setting:
        for _ in range(2):
            assert setting.post("/interrupt").status_code == 200
        assert setting.relay.connection_count == connections


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_instance_is_away(setting: Setting, method: str) -> None:
    setting.lender.error = AuthenticationFailed("The key is not accepted.")
    for _ in range(3):
        answer = requests.request(method, setting.url("/prompt"), timeout=LIMIT_S)
        assert answer.status_code == 503
        assert answer.json() == {
            "error": {
                "type": "instance_unreachable",
                "message": "primary cannot be reached: The key is not accepted.",
                "details": "",
                "extra_info": {},
            },
            "node_errors": {},
        }
        assert int(answer.headers["Retry-After"]) > 0
    assert setting.state.trouble == "primary cannot be reached: The key is not accepted."
    assert setting.lender.lent == ["one"], "a machine that is away is not knocked at by every request"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_waits_while_comfyui_starts(
    setting: Setting, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that retries only a refused connection takes 503 for the end."""
    monkeypatch.setattr(lease, "START_PAUSE_S", 0.02)
    setting.relay.is_open = False
    with ThreadPoolExecutor(5) as threads:
        ask = partial(requests.request, method, setting.url("/prompt"), timeout=LIMIT_S)
        answers = [threads.submit(ask, json={"prompt": quick_graph()}) for _ in range(5)]
        wait_until(lambda: setting.relay.connection_count > 20, what="ComfyUI is asked again and again")
        assert setting.state.open_requests == 5
        assert (setting.state.trouble or "").startswith("ComfyUI on primary does not answer: ")
        setting.relay.is_open = True
        assert [answer.result().status_code for answer in answers] == [200] * 5
    if method == "POST":
        for answer in answers:
            setting.comfyui.wait_for(answer.result().json()["prompt_id"])
        assert len(setting.comfyui.executions()) == 2 * 5
    assert setting.state.trouble is None


@pytest.mark.parametrize("path", ["/prompt", "/ws?clientId=me"])
def test_a_request_waits_while_nothing_listens_at_the_instance(
    setting: Setting, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "START_PAUSE_S", 0.02)
    setting.lender.error = NothingListens("Nothing listens on port 8188.")
    ask = partial(connect, setting.port, path) if path.startswith("/ws") else partial(setting.get, path)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(ask)
        wait_until(lambda: len(setting.lender.lent) > 3)
        assert setting.state.trouble == "primary cannot be reached: Nothing listens on port 8188."
        setting.lender.error = None
        with closing(answer.result()) as answered:
            assert getattr(answered, "status_code", 200) == 200


def test_a_request_waits_no_longer_for_a_machine_that_does_not_let_us_in(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "START_PAUSE_S", 0.02)
    setting.lender.error = NothingListens("Nothing listens on port 8188.")
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(setting.get, "/prompt")
        wait_until(lambda: len(setting.lender.lent) > 3)
        setting.lender.error = AuthenticationFailed("The key is not accepted.")
        assert answer.result().status_code == 503
        assert "The key is not accepted." in answer.result().text


def test_comfyui_is_not_asked_when_no_request_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "START_PAUSE_S", 0.01)
    monkeypatch.setattr(lease, "OPEN_TIMEOUT_S", 0.1)
    lender = Lender("", error=NothingListens("Nothing listens on port 8188."))

    async def use() -> None:
        leased = lease.InstanceLease(partial(lender.borrow, "one"), "primary")
        with pytest.raises(InstanceUnreachable, match=r"Nothing listens on port 8188\."):
            async with leased.use():
                pass
        assert leased._opening is not None
        await asyncio.wait({leased._opening}, timeout=LIMIT_S)
        assert leased._opening is None

    asyncio.run(use())
    assert len(lender.lent) > 1


def test_a_request_does_not_share_an_attempt_that_has_just_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "START_PAUSE_S", 0.01)
    monkeypatch.setattr(lease, "OPEN_TIMEOUT_S", 0.1)
    lender = Lender("http://127.0.0.1:9", error=NothingListens("Nothing listens on port 8188."))

    async def use() -> None:
        leased = lease.InstanceLease(partial(lender.borrow, "one"), "primary")
        with pytest.raises(InstanceUnreachable):
            async with leased.use():
                pass
        attempt = leased._opening
        assert attempt is not None
        while not attempt.done():
            await asyncio.sleep(0)
        assert leased._opening is attempt
        leased._is_silent = False  # nothing listens at this address, so it must not be asked
        lender.error = None
        async with leased.use() as upstream:
            assert upstream.base_url == "http://127.0.0.1:9"
        await leased.close()

    asyncio.run(use())


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_comfyui_is_away(setting: Setting, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "START_PAUSE_S", 0.02)
    setting.relay.is_open = False
    with monkeypatch.context() as patch:
        patch.setattr(lease, "OPEN_TIMEOUT_S", 0.2)
        answer = requests.request(
            method, setting.url("/prompt"), json={"prompt": quick_graph()}, timeout=LIMIT_S
        )
    assert answer.status_code == 503
    assert answer.json()["error"]["message"].startswith("ComfyUI on primary does not answer: ")
    setting.relay.is_open = True
    assert setting.get("/prompt").status_code == 200
    assert setting.state.trouble is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "127.0.0.1:8188"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:8188"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:8188"}, 403),
        ({"Host": "192.168.0.1:8188"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Origin": "http://localhost:{port}"}, 403),
        ({"Host": "localhost:9", "Origin": "http://LOCALHOST:9"}, 200),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Referer": "http://127.0.0.1:1/"}, 403),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_pages_of_other_sites_stay_out(setting: Setting, headers: dict[str, str], status: int) -> None:
    headers = {name: value.replace("{port}", str(setting.port)) for name, value in headers.items()}
    assert setting.get("/prompt", headers=headers).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "host.docker.internal"}, 200),
        ({"Host": "HOST.docker.internal.:{port}"}, 200),
        ({"Host": "gpu:{port}", "Origin": "http://gpu:{port}"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "evil.host.docker.internal"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "gpu:{port}", "Origin": "http://evil.example"}, 403),
        ({"Host": "gpu:{port}", "Origin": "http://gpu:8189"}, 403),
    ],
)
def test_other_host_names_that_the_policy_allows(
    comfyui: RunningComfyUI, headers: dict[str, str], status: int
) -> None:
    """The page at gpu:8189 is at a local port too: no list of origins may allow it."""
    pages = frozenset({Origin(scheme="http", host="gpu", port=8189)})
    policy = PortPolicy(hosts=("host.docker.internal", "GPU"), origins=pages)
    policy.used_ports.add([8189])
    with local_port(comfyui, policy=policy) as setting:
        headers = {name: value.replace("{port}", str(setting.port)) for name, value in headers.items()}
        assert setting.get("/prompt", headers=headers).status_code == status


def test_a_client_that_goes_away_is_not_served_on(setting: Setting) -> None:
    path = setting.comfyui.folders.input_dir / "big.bin"
    path.write_bytes(b"x" * 200_000_000)
    with socket.create_connection(("127.0.0.1", setting.port)) as client:
        client.sendall(b"GET /view?filename=big.bin&type=input HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.recv(1000)
        assert setting.state.open_requests == 1
    wait_until(lambda: setting.state.open_requests == 0)


def test_many_at_once(setting: Setting) -> None:
    setting.comfyui.faults(freeze_s=0.5)
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(setting.get("/prompt").status_code)) for _ in range(50)
    ]
    began_s = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 50
    assert time.monotonic() - began_s < 20, "one after the other they take 25 s"
    assert setting.lender.lent == ["one"]


def _exchange(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as client:
        client.sendall(request)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
        return answer


class _Pieces:
    """A body of unknown length."""

    def __iter__(self) -> Iterator[bytes]:
        yield from (b'{"free_', b'memory": 1', b"}")


class _Recorded:
    """A socket from which http.client reads a recorded response."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def makefile(self, mode: str) -> Any:
        return io.BytesIO(self._content)
