"""Tests that a local port limits what a hostile instance sends."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import aiohttp
import pytest
import requests
import websocket
from yarl import URL

from comfyui_workflow.proxy import upstream
from comfyui_workflow.proxy.lease import AnswerTooLong, InstanceLease, Upstream
from comfyui_workflow.proxy.missed_events import message_of
from comfyui_workflow.proxy.model import PortState, PortWanted
from comfyui_workflow.proxy.ports import LocalPorts
from comfyui_workflow.proxy.prompt_status import history_of, queued_ids
from comfyui_workflow.proxy.send_queue import Frame
from comfyui_workflow.proxy.upstream import UpstreamSocket
from tests import hostile
from tests.hostile import Attack, HostileComfyUI
from tests.proxy.setting import Lender
from tests.sandbox.running_comfyui import LIMIT_S

FAR_TOO_MUCH = 1_000_000_000


@contextmanager
def port_of(there: HostileComfyUI) -> Iterator[Callable[[], PortState]]:
    ports = LocalPorts(Lender(there.url).borrow)
    ports.start()

    def state() -> PortState:
        found = ports.state("one")
        assert found
        return found

    try:
        ports.set_ports({"one": PortWanted(name="primary", port=0)})
        yield state
    finally:
        ports.stop()


def test_a_message_that_is_too_large_ends_the_socket_and_is_told() -> None:
    with HostileComfyUI({"/ws": hostile.huge_frame(3_000_000_000)}) as there, port_of(there) as state:
        url = f"ws://127.0.0.1:{state().port}/ws?clientId=me"
        client = websocket.create_connection(url, timeout=LIMIT_S, suppress_origin=True)
        opcode, content = client.recv_data()
        assert (opcode, content[:2]) == (websocket.ABNF.OPCODE_CLOSE, (1009).to_bytes(2, "big"))
        assert "websocket message of more than 32 MB" in (state().trouble or "")
        assert there.sent_bytes < 20_000_000
        assert len([path for path in there.asked if "/ws" in path]) == 1


def test_a_proof_that_does_not_end_is_none() -> None:
    with HostileComfyUI({"GET /prompt": hostile.flood(FAR_TOO_MUCH)}) as there, port_of(there) as state:
        answer = requests.post(f"http://127.0.0.1:{state().port}/interrupt", json={}, timeout=LIMIT_S)
        assert answer.status_code == 503
        assert "sends more than 65536 bytes in answer to /prompt" in answer.json()["error"]["message"]
        assert there.sent_bytes < 20_000_000


def test_an_answer_is_passed_on_as_it_comes_and_not_unpacked() -> None:
    with HostileComfyUI({"/view": hostile.bomb(50_000_000)}) as there, port_of(there) as state:
        url = f"http://127.0.0.1:{state().port}/view?filename=a.png"
        with requests.get(url, stream=True, timeout=LIMIT_S) as answer:
            assert len(gzip.decompress(answer.raw.read(decode_content=False))) == 49_807_360


@pytest.mark.parametrize("ask", [queued_ids, lambda way: history_of(way, "p")], ids=["queue", "history"])
@pytest.mark.parametrize(
    "attack",
    [hostile.flood(FAR_TOO_MUCH), hostile.flood(3_000_000), hostile.chunks(FAR_TOO_MUCH)],
    ids=["flood", "many values", "chunks"],
)
def test_what_the_port_itself_asks_is_read_within_limits(
    attack: Attack, ask: Callable[[Upstream], Awaitable[Any]]
) -> None:
    async def asked(url: str) -> None:
        async with aiohttp.ClientSession() as session:
            way = type("StandIn", (), {"kept": session, "url": lambda _, target: URL(url + target)})()
            with pytest.raises((AnswerTooLong, aiohttp.ClientPayloadError)):
                await ask(cast(Upstream, way))

    with HostileComfyUI({"/queue": attack, "/history": attack}) as there:
        asyncio.run(asked(there.url))
        assert there.sent_bytes < 60_000_000


def test_what_is_held_back_is_let_go_when_it_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "LARGEST_HOLD_BYTES", 1000)
    delivered: list[Frame] = []

    async def hold() -> None:
        socket = UpstreamSocket(cast(InstanceLease, None), "/ws", delivered.append)
        with socket.holding():
            socket._pass_on(b"x" * 900)
            assert delivered == []
            socket._pass_on(b"y" * 900)
            assert len(delivered) == 2

    asyncio.run(hold())


def test_a_long_message_is_not_read_where_everybody_waits_for_it() -> None:
    short = '{"type":"executed","data":{"prompt_id":"p"}}'
    assert message_of(short) == {"type": "executed", "data": {"prompt_id": "p"}}
    assert message_of('{"type":"executed","data":[' + "[]," * 200_000 + "[]]}") == {}
    assert message_of('{"type":"executed","data":"' + "x" * 5_000_000 + '"}') == {}
