"""Tests of the limits on one instance: each is exceeded by a hostile server."""

import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.event_stream import MAX_CPU_SHARE, EventFeed, Subscription, Throttle
from comfyui_workflow.comfyui.history import MOST_OUTPUTS
from comfyui_workflow.comfyui.limits import InstanceLimits, KnownBreaches, LimitBreaches
from comfyui_workflow.comfyui.timed_connections import AnswerClock
from comfyui_workflow.errors import ComfyUIUnavailable, InstanceBroken, LimitExceeded
from tests import hostile
from tests.hostile import Attack, HostileComfyUI

DEADLINE_S = 30.0
LIMITS = InstanceLimits(answer_bytes=1_000_000, answer_s=60.0, message_bytes=1_000_000, values=10_000)
SHORT = replace(LIMITS, answer_s=1.0, stream_bytes_per_s=256)
BIG = 1_000_000_000
"""More than could be sent during a test: only a client without a limit would read it all."""


@contextmanager
def asking(attacks: dict[str, Attack], limits: InstanceLimits = LIMITS) -> Iterator[ComfyUIClient]:
    with HostileComfyUI(attacks) as there, closing(ComfyUIClient(there.url, limits=limits)) as client:
        yield client


ASK: dict[str, Callable[[ComfyUIClient], object]] = {
    "GET /prompt": lambda client: client.probe(),
    "POST /prompt": lambda client: client.submit(
        {}, prompt_id="p", client_id="c", extra_data={}, definitions=dict
    ),
    "/queue": lambda client: client.queue(),
    "POST /queue": lambda client: client.delete_pending("p"),
    "/history/p": lambda client: client.history("p"),
    "/history?": lambda client: client.recent_history(200),
    "/object_info": lambda client: client.definitions(),
    "/system_stats": lambda client: client.system(),
    "/internal/logs/raw": lambda client: client.log(),
    "/internal/folder_paths": lambda client: client.directories(),
    "/models/loras": lambda client: client.choices("/models/loras"),
    "/node_replacements": lambda client: client.replaced_classes(),
    "/interrupt": lambda client: client.interrupt("p"),
}


@pytest.mark.parametrize("path", ASK)
def test_no_answer_is_read_further_than_its_limit(path: str) -> None:
    with HostileComfyUI({path: hostile.flood(BIG)}) as there:
        words = r"sends more than .* in answer to .*Restart it there"
        with (
            closing(ComfyUIClient(there.url, limits=LIMITS)) as client,
            pytest.raises(LimitExceeded, match=words),
        ):
            ASK[path](client)
        assert there.sent_bytes < 20_000_000  # some of it is in the buffers of both ends


@pytest.mark.parametrize("path", ASK)
def test_an_answer_that_drips_is_cut(path: str) -> None:
    with (
        asking({path: hostile.drip()}, SHORT) as client,
        pytest.raises(LimitExceeded, match=r"does not finish .* within 1 s"),
    ):
        ASK[path](client)


@pytest.mark.parametrize(
    "attack",
    [hostile.drip_head(), hostile.continue_for_ever, hostile.drip(hostile.head("Connection: close"))],
    ids=["head", "100 Continue", "without a length"],
)
def test_a_drip_is_cut_wherever_it_is(attack: Attack) -> None:
    with asking({"/prompt": attack}, SHORT) as client, pytest.raises(LimitExceeded, match="within 1 s"):
        client.probe()


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (hostile.bomb(BIG), "compresses its answer"),
        (hostile.bomb(BIG, "302 Found", "Location: /elsewhere"), "compresses its answer"),
        (hostile.chunks(BIG), "more than 976 KB"),
        (hostile.flood(BIG, is_announced=True), "more than 976 KB"),
        (hostile.flood(BIG, value=b" "), "more than 976 KB"),
    ],
    ids=["bomb", "bomb in a redirect", "chunks", "announced", "blanks"],
)
def test_what_is_too_large_takes_no_memory(attack: Attack, words: str) -> None:
    with asking({"/history": attack}) as client:
        tracemalloc.start()
        try:
            with pytest.raises(LimitExceeded, match=words):
                client.history("p")
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()


def test_many_small_values_are_counted_before_they_become_objects() -> None:
    def dense(write: hostile.Write) -> None:
        content = b'{"a":[' + b"[]," * 200_000 + b"[]]}"
        write(hostile.head(f"Content-Length: {len(content)}") + content)

    with (
        asking({"/object_info": dense}) as client,
        pytest.raises(LimitExceeded, match="more than 10000 JSON values"),
    ):
        client.definitions()


def test_a_text_that_would_take_four_times_its_bytes_is_measured_as_such() -> None:
    def wide(write: hostile.Write) -> None:
        content = b'{"a":"' + b"x" * 400_000 + "\N{GRINNING FACE}".encode() + b'"}'
        write(hostile.head(f"Content-Length: {len(content)}") + content)

    with (
        asking({"/object_info": wide}) as client,
        pytest.raises(LimitExceeded, match="in other characters than ASCII"),
    ):
        client.definitions()


def test_headers_without_end_are_no_answer() -> None:
    with asking({"/prompt": hostile.headers_for_ever}) as client, pytest.raises(ComfyUIUnavailable):
        client.probe()


def test_cookies_are_not_collected() -> None:
    def cookie(write: hostile.Write) -> None:
        content = b'{"exec_info": {"queue_remaining": 0}}'
        write(hostile.head("Set-Cookie: a=" + "x" * 9000, f"Content-Length: {len(content)}") + content)

    with asking({"/prompt": cookie}) as client:
        client.probe()
        assert not list(client._session.cookies)


def test_more_outputs_than_anybody_fetches_are_refused() -> None:
    outputs = ",".join(f'{{"filename":"{number}.png"}}' for number in range(MOST_OUTPUTS + 1))

    def many(write: hostile.Write) -> None:
        content = f'{{"p":{{"outputs":{{"1":{{"images":[{outputs}]}}}}}}}}'.encode()
        write(hostile.head(f"Content-Length: {len(content)}") + content)

    with (
        asking({"/history": many}, InstanceLimits()) as client,
        pytest.raises(LimitExceeded, match=f"more than {MOST_OUTPUTS} outputs"),
    ):
        client.history("p")


def test_a_silent_instance_is_away_and_not_broken() -> None:
    def silence(write: hostile.Write) -> None:
        threading.Event().wait(DEADLINE_S)

    with (
        HostileComfyUI({"/prompt": silence}) as there,
        closing(ComfyUIClient(there.url, read_timeout_s=0.2, limits=LIMITS)) as client,
        pytest.raises(ComfyUIUnavailable, match="timed out"),
    ):
        client.probe()


def test_a_file_may_take_as_long_as_it_comes() -> None:
    pieces = 20

    def steady(write: hostile.Write) -> None:
        write(hostile.head(f"Content-Length: {pieces * 1000}"))
        for _ in range(pieces):
            time.sleep(0.1)
            write(b"x" * 1000)

    def view(client: ComfyUIClient) -> bytes:
        with client.view("a.png", subfolder="", folder="output") as content:
            return b"".join(content)

    with asking({"/view": steady}, SHORT) as client:  # twice as long as an answer may take
        assert len(view(client)) == pieces * 1000
    with (
        asking({"/view": hostile.drip()}, SHORT) as client,
        pytest.raises(LimitExceeded, match="too slowly"),
    ):
        view(client)


def test_an_instance_that_broke_a_limit_is_not_asked_for_a_while() -> None:
    now_s = [0.0]
    breaches = LimitBreaches(remembered_s=60, clock=lambda: now_s[0])
    with (
        HostileComfyUI({"/queue": hostile.bomb(BIG)}) as there,
        closing(ComfyUIClient(there.url, limits=LIMITS, breaches=breaches)) as client,
    ):
        with pytest.raises(InstanceBroken, match="GET /queue"):
            client.queue()
        with pytest.raises(InstanceBroken, match="GET /queue"):
            client.probe()
        assert there.asked == ["GET /queue"]
        now_s[0] = 61
        assert client.probe() == 0


def test_a_broken_limit_outlives_the_connection() -> None:
    known = KnownBreaches()
    known.of("one").record(LimitExceeded("too much"))
    known.of("other").refuse()
    with pytest.raises(LimitExceeded, match="too much"):
        known.of("one").refuse()


def test_an_answer_as_large_as_allowed_is_read() -> None:
    def large(write: hostile.Write) -> None:
        block = b"x" * 1_000_000
        write(hostile.head("Content-Length: 30000008") + b'{"a":"')
        for _ in range(30):
            write(block)
        write(b'"}')

    with asking({"/object_info": large}, InstanceLimits()) as client:
        assert client.definitions() == {}


def test_the_clock_counts_no_pause_of_ours() -> None:
    clock = AnswerClock(10, LimitExceeded("late"))
    clock.spend(min(3600.0, clock.timeout_s(3)), 1)
    assert clock.timeout_s(30) == 7
    clock.spend(7, 0)
    with pytest.raises(LimitExceeded, match="late"):
        clock.timeout_s(30)


@contextmanager
def listening(attack: Attack, key: str = "/ws") -> Iterator[tuple[EventFeed, HostileComfyUI, LimitBreaches]]:
    breaches = LimitBreaches()
    with HostileComfyUI({key: attack}) as there:
        feed = EventFeed(there.url, "client", limits=LIMITS, breaches=breaches)
        feed.start()
        try:
            yield feed, there, breaches
        finally:
            feed.close()
            assert not feed._thread.is_alive()


def broken(breaches: LimitBreaches) -> str:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            breaches.refuse()
        except LimitExceeded as error:
            return str(error)
        time.sleep(0.01)
    raise AssertionError("no limit was broken")


@pytest.mark.parametrize(
    "attack",
    [hostile.huge_frame(3_000_000_000), hostile.pieces_for_ever(), hostile.pieces_for_ever(0)],
    ids=["a frame of 3 GB", "pieces for ever", "empty pieces for ever"],
)
def test_no_message_is_read_further_than_its_limit(attack: Attack) -> None:
    with listening(attack) as (_, there, breaches):
        assert "websocket message of more than 976 KB" in broken(breaches)
        assert there.sent_bytes < 20_000_000


def test_the_values_of_a_message_are_counted() -> None:
    content = b'{"type":"x","data":[' + b"[]," * 200_000 + b"[]]}"
    with listening(hostile.message_of(content)) as (_, _, breaches):
        assert "more than 10000 JSON values in a websocket message" in broken(breaches)


@pytest.mark.parametrize(
    ("key", "attack"),
    [
        ("/ws", hostile.pings_for_ever),
        ("/ws", hostile.drip(hostile.frame_head(1000), b"x")),
        ("/ws", hostile.many_messages),
        ("/ws!", hostile.drip(b"HTTP/1.1 101 Switching")),
        ("/ws!", hostile.drip(b"HTTP/1.1 400 Bad\r\nContent-Length: 99999999999999999999\r\n\r\n")),
    ],
    ids=["pings", "a frame that drips", "messages", "a handshake that drips", "a refusal without end"],
)
def test_a_feed_can_be_left_at_any_time(key: str, attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfyui_workflow.comfyui.bounded_socket.HANDSHAKE_TIMEOUT_S", 0.5)
    with listening(attack, key) as (feed, there, _):
        deadline = time.monotonic() + DEADLINE_S
        while not there.asked or (key == "/ws" and not feed.times_connected):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_messages_that_nobody_takes_do_not_pile_up() -> None:
    subscription = Subscription()
    for number in range(100):
        subscription.put({"type": "x", "number": number}, 1_000_000)
    taken: list[Any] = subscription.take(0)
    assert [message["number"] for message in taken] == list(range(92, 100))


def test_a_feed_takes_its_share_of_the_processor_and_no_more() -> None:
    now_s, worked_s = [0.0], [0.0]
    pace = Throttle(lambda: now_s[0], lambda: worked_s[0])
    now_s[0] = worked_s[0] = 0.05
    assert pace.pause_s() == 0
    now_s[0] = worked_s[0] = 0.2
    assert pace.pause_s() == pytest.approx(0.2 / MAX_CPU_SHARE - 0.2)
    now_s[0], worked_s[0] = 100, 0.4
    assert pace.pause_s() <= 0
