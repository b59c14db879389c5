"""Whatever bytes come where a websocket should be: the thread that reads it lives, and tries again."""

import base64
import hashlib
import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from comfyui_workflow.comfyui.event_stream import EventFeed
from tests.fuzz.effort import effort
from tests.fuzz.peer import Peer

STATUS_LINES = [
    "HTTP/1.1 101 Switching Protocols",
    "HTTP/1.1 200 OK",
    "HTTP/1.1 302 Found",
    "HTTP/1.1",
    "HTTP/1.1 x",
    "",
    "101",
    "HTTP/1.1 401 Unauthorized",
    "SSH-2.0-OpenSSH_9",
]
HEADERS = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Accept: {accept}",
    "Sec-WebSocket-Accept: x",
    "Sec-WebSocket-Protocol: x",
    "Set-Cookie: a",
    "Set-Cookie: a=b; domain=",
    "Location: http://[",
    "Location: ws://127.0.0.1:1",
    "no colon",
    ": x",
    "Content-Length: x",
    "\xff: \xff",
    "Content-Length: 5",
]
handshakes = st.builds(
    lambda status, headers: "\r\n".join([status, *headers, "", ""]).encode("latin-1"),
    st.sampled_from(STATUS_LINES),
    st.lists(st.sampled_from(HEADERS), max_size=5),
)
GOOD = "\r\n".join(
    ["HTTP/1.1 101 x", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: {accept}", "", ""]
).encode()
FRAMES = [
    b"\x81\x02{}",
    b"\x81\x02\xff\xfe",
    b"\x82\x03\x00\x01\x02",
    b"\x88\x00",
    b"\x88\x02\x03\xe8",
    b"\x88\x01\x00",
    b"\x88\x04\x03\xe8\xff\xff",
    b"\x89\x00",
    b"\x8a\x00",
    b"\x01\x01[",
    b"\x80\x01]",
    b"\x00\x01x",
    b"\x81\x7e\xff\xff",
    b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xf1\x00",
    b"\x83\x00",
    b"\x81\x82\x00\x00\x00\x00{}",
    b"\x89\x7e\x00\x80" + b"x" * 128,
]


class WebsocketPeer(Peer):
    """Knows what to answer to the key it was sent, when it is to be taken for a websocket."""

    said = b""

    def answer(self, head: bytes) -> bytes:
        found = re.search(rb"Sec-WebSocket-Key: (\S+)", head)
        key = (found[1] if found else b"") + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        return self.said.replace(b"{accept}", base64.b64encode(hashlib.sha1(key).digest()))


@pytest.fixture(scope="module")
def peer() -> Iterator[WebsocketPeer]:
    made = WebsocketPeer()
    yield made
    made.close()


@effort(40)
@given(
    handshake=st.one_of(st.just(GOOD), st.just(GOOD), handshakes, st.binary(max_size=30)),
    frames=st.lists(st.sampled_from(FRAMES) | st.binary(max_size=12), max_size=5).map(b"".join),
)
@example(handshake=b"HTTP/1.1\r\n\r\n", frames=b"")
@example(handshake=b"HTTP/1.1 x\r\n\r\n", frames=b"")
@example(handshake=GOOD, frames=b"\x81\x02\xff\xfe")
def test_the_thread_that_reads_the_websocket_lives(
    peer: WebsocketPeer, handshake: bytes, frames: bytes
) -> None:
    peer.said = handshake + frames
    feed = EventFeed(peer.url, "client")
    with feed.subscribe("x") as subscription:
        assert feed._connect_and_read() in (True, False)
        assert subscription.take(0) == []


def test_a_redirect_does_not_lead_out_of_the_tunnel(peer: WebsocketPeer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.2)
        address = f"127.0.0.1:{elsewhere.getsockname()[1]}"
        peer.said = f"HTTP/1.1 302 Found\r\nLocation: ws://{address}/\r\nConnection: close\r\n\r\n".encode()
        assert EventFeed(peer.url, "client")._connect_and_read() is False
        with pytest.raises(TimeoutError):
            elsewhere.accept()
