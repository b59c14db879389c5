"""Tests that large responses and messages take memory once, and that slow ones hold up nobody."""

import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from comfyui_workflow.comfyui import event_stream
from comfyui_workflow.comfyui.bounded_socket import MOST_PIECES
from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.event_stream import EventFeed
from comfyui_workflow.comfyui.large_content import MOST_IN_MEMORY_BYTES, Spool
from comfyui_workflow.comfyui.previews import PreviewReader
from comfyui_workflow.errors import ComfyUIUnavailable
from tests import hostile
from tests.hostile import Attack, HostileComfyUI

DEADLINE_S = 30.0
SHORT_S = 5.0
"""Much longer than any of these answers takes, much shorter than a message may take."""
LARGE_BYTES = 20_000_000
BLOCK = b"x" * 250_000


def _send_text(write: hostile.Write, size_bytes: int) -> None:
    """`{"type": "x", "data": "xxx…"}` from blocks, so that the sender needs no memory for it."""
    write(b'{"type": "x", "data": "')
    for _ in range(size_bytes // len(BLOCK)):
        write(BLOCK)
    write(b'"}')


def _text_bytes(size_bytes: int) -> int:
    return size_bytes // len(BLOCK) * len(BLOCK) + len(b'{"type": "x", "data": ""}')


def large_answer(write: hostile.Write) -> None:
    write(hostile.head(f"Content-Length: {_text_bytes(LARGE_BYTES)}"))
    _send_text(write, LARGE_BYTES)


def large_message(write: hostile.Write) -> None:
    write(hostile.frame_head(_text_bytes(LARGE_BYTES), 1))
    _send_text(write, LARGE_BYTES)
    threading.Event().wait(DEADLINE_S)


def dripping_message(write: hostile.Write) -> None:
    hostile.drip(hostile.frame_head(30_000_000) + bytes(2 * MOST_IN_MEMORY_BYTES + 100_000), b"x")(write)


class Heard:
    """The messages of a feed: how long their data is."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self._arrived = threading.Condition()

    def __call__(self, message: Any) -> None:
        with self._arrived:
            self.lengths.append(len(message["data"]))
            self._arrived.notify_all()

    def wait(self, count: int, timeout_s: float) -> list[int]:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.lengths) >= count, timeout_s), self.lengths
            return self.lengths


@contextmanager
def feeding(attack: Attack) -> Iterator[tuple[EventFeed, Heard]]:
    heard = Heard()
    with HostileComfyUI({"/ws": attack}) as there:
        feed = EventFeed(there.url, "client", on_message=heard)
        feed.start()
        try:
            yield feed, heard
        finally:
            feed.close()


@contextmanager
def traced() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_messages_that_drip_hold_up_no_large_message_and_no_large_answer() -> None:
    attack = threading.Semaphore(0)

    def drip(write: hostile.Write) -> None:
        dripping_message(lambda data: (write(data), attack.release())[0])

    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(feeding(drip))
        for _ in range(3 * 5):  # the large beginning was taken, and a few drops
            assert attack.acquire(timeout=DEADLINE_S)
        there = stack.enter_context(HostileComfyUI({"/queue": large_answer}))
        client = stack.enter_context(closing(ComfyUIClient(there.url)))
        began_s = time.monotonic()
        client.queue()
        _, heard = stack.enter_context(feeding(large_message))
        heard.wait(1, SHORT_S)
        assert time.monotonic() - began_s < SHORT_S


def test_an_answer_that_drips_holds_up_no_large_message() -> None:
    begun = hostile.head("Content-Length: 30000000") + bytes(2 * MOST_IN_MEMORY_BYTES)
    with (
        HostileComfyUI({"/queue": hostile.drip(begun)}) as there,
        closing(ComfyUIClient(there.url)) as client,
        ThreadPoolExecutor() as pool,
    ):
        dripping = pool.submit(client.queue)
        until(lambda: there.sent_bytes > len(begun))
        with feeding(large_message) as (_, heard):
            heard.wait(1, SHORT_S)
        assert not dripping.done()
        there.__exit__()
        with pytest.raises(ComfyUIUnavailable):
            dripping.result(DEADLINE_S)


def test_large_answers_and_large_messages_take_memory_once() -> None:
    """Three times the size of one: its bytes, its text, and the value. What was handled is not kept."""
    with ExitStack() as stack:
        clients = [
            stack.enter_context(
                closing(ComfyUIClient(stack.enter_context(HostileComfyUI({"/queue": large_answer})).url))
            )
            for _ in range(3)
        ]
        stack.enter_context(traced())
        pool = stack.enter_context(ThreadPoolExecutor())
        feeds = [stack.enter_context(feeding(large_message)) for _ in range(3)]
        for answer in [pool.submit(client.queue) for client in clients]:
            answer.result(DEADLINE_S)
        for _, heard in feeds:
            heard.wait(1, DEADLINE_S)
        until(lambda: tracemalloc.get_traced_memory()[0] < LARGE_BYTES / 2)
        assert tracemalloc.get_traced_memory()[1] < 3.3 * LARGE_BYTES


def test_the_error_about_a_large_answer_does_not_hold_the_answer() -> None:
    def half(write: hostile.Write) -> None:
        write(hostile.head("Connection: close") + b'{"a": "')
        for _ in range(LARGE_BYTES // len(BLOCK)):
            write(BLOCK)

    with HostileComfyUI({"/queue": half}) as there, closing(ComfyUIClient(there.url)) as client, traced():
        with pytest.raises(ComfyUIUnavailable, match="not JSON") as caught:
            client.queue()
        assert caught.value.__cause__ is not None
        assert tracemalloc.get_traced_memory()[0] < LARGE_BYTES / 4


@pytest.mark.parametrize("size_bytes", [1_000_000, LARGE_BYTES], ids=["small", "large"])
def test_fragments_with_pings_between_are_one_message(size_bytes: int) -> None:
    """Each comes later than one read waits."""
    head, end = b'{"type": "x", "data": "', b'"}'
    pieces = [head, *[b"x" * (size_bytes // 10)] * 10, end]

    def send(write: hostile.Write) -> None:
        for number, piece in enumerate(pieces):
            is_last = piece is end
            write(hostile.frame_head(len(piece), 0 if number else 1, is_last=is_last) + piece[:5])
            time.sleep(0.08)
            write(piece[5:] + (b"" if is_last else b"\x89\x00"))
        write(hostile.frame_head(25, 1) + b'{"type": "x", "data": ""}')
        threading.Event().wait(DEADLINE_S)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_stream, "RECEIVE_TIMEOUT_S", 0.03)
        with feeding(send) as (feed, heard):
            assert heard.wait(2, DEADLINE_S)[:2] == [size_bytes, 0]
            assert feed.times_connected == 1


def test_a_large_message_may_come_in_as_many_fragments_as_allowed() -> None:
    def send(write: hostile.Write) -> None:
        write(hostile.frame_head(23, 1, is_last=False) + b'{"type": "x", "data": "')
        for _ in range(MOST_PIECES - 2):
            write(hostile.frame_head(50_000, 0, is_last=False) + BLOCK[:50_000])
        write(hostile.frame_head(2, 0) + b'"}')
        threading.Event().wait(DEADLINE_S)

    with feeding(send) as (_, heard):
        assert heard.wait(1, DEADLINE_S)[0] == (MOST_PIECES - 2) * 50_000


def test_a_masked_frame_breaks_the_socket() -> None:
    """Only clients mask."""

    def send(write: hostile.Write) -> None:
        write(b"\x81\x82abcd" + bytes(2))
        threading.Event().wait(DEADLINE_S)

    with feeding(send) as (feed, heard):
        until(lambda: feed.times_connected > 1)
        assert not heard.lengths


class Full:
    """A file on a disk without space."""

    def write(self, _piece: bytes) -> int:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        pass


def test_a_full_disk_costs_the_message_and_not_the_feed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class FullAtFirst(Spool):
        count = 0

        def __init__(self) -> None:
            super().__init__()
            FullAtFirst.count += 1
            if FullAtFirst.count == 1:
                self._file.close()
                self._file = Full()  # type: ignore[assignment]

    monkeypatch.setattr("comfyui_workflow.comfyui.bounded_socket.Spool", FullAtFirst)
    with feeding(large_message) as (feed, heard):
        heard.wait(1, DEADLINE_S)
        assert feed.times_connected == 2
    assert f"cannot be stored in {tempfile.gettempdir()}: No space left on device" in caplog.text


def test_long_ids_of_a_preview_are_not_parsed() -> None:
    metadata = b"[" + b"[]," * 1_000_000 + b"[]]"
    frame = b"\x00\x00\x00\x04" + len(metadata).to_bytes(4, "big") + metadata + b"\x89PNG\r\n\x1a\n"
    with traced():
        assert PreviewReader().read(frame) is None
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
