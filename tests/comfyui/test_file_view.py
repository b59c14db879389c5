"""Tests of `GET /view`: responses that contain the file, and responses that do not."""

from collections.abc import Iterator

import pytest

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.errors import ComfyUIUnavailable, RemoteFileError, RemoteFileMissing
from tests.fuzz.peer import Peer


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


def got(peer: Peer, status: str, *headers: str, body: bytes = b"12345678", start: int = 0) -> bytes:
    head = "\r\n".join((f"HTTP/1.1 {status}", "Connection: close", *headers, "", ""))
    peer.answers["GET /view"] = head.encode() + body
    client = ComfyUIClient(peer.url, read_timeout_s=5)
    with client.view("a.png", subfolder="", folder="output", start=start) as viewed:
        return b"".join(viewed)


def test_the_file_is_taken_whole_or_from_where_it_was_asked_for(peer: Peer) -> None:
    assert got(peer, "200 OK", "Content-Length: 8") == b"12345678"
    assert got(peer, "200 OK") == b"12345678"
    assert got(peer, "206 Partial", "Content-Range: bytes 4-11/12", "Content-Length: 8", start=4)
    assert got(peer, "206 Partial", "Content-Range: bytes 0-7/8", "Content-Length: 8")


@pytest.mark.parametrize(
    "status", ["302 Found", "203 Changed", "201 Created", "204 No", "304 Not", "401 Who", "500 Oh"]
)
def test_any_other_answer_is_no_file(peer: Peer, status: str) -> None:
    with pytest.raises(RemoteFileError, match=f"HTTP {status[:3]}"):
        got(peer, status, "Content-Length: 8", "Location: /login")
    with pytest.raises(RemoteFileMissing):
        got(peer, "404 Not Found", "Content-Length: 8")


@pytest.mark.parametrize(
    "content_range", ["bytes 0-7/8", "bytes 4-11/13", "bytes 4-11/*", "bytes 5-12/13", "pages 4-11/12", ""]
)
def test_another_part_than_was_asked_for_is_refused(peer: Peer, content_range: str) -> None:
    with pytest.raises(RemoteFileError, match="another part"):
        got(peer, "206 Partial", f"Content-Range: {content_range}", "Content-Length: 8", start=4)


def test_an_answer_that_ends_too_soon_is_tried_again(peer: Peer) -> None:
    with pytest.raises(ComfyUIUnavailable):
        got(peer, "200 OK", "Content-Length: 9")


def test_when_it_was_modified_is_read_from_what_aiohttp_tells(peer: Peer) -> None:
    head = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\nETag: "%s-8"\r\nConnection: close\r\n\r\n' % b"18b0f"
    peer.answers["HEAD /view"] = head
    client = ComfyUIClient(peer.url, read_timeout_s=5)
    assert client.view_info("a.png", subfolder="", folder="output").modified_ns == 0x18B0F
    peer.answers["HEAD /view"] = head.replace(b"-8", b"-9")
    assert client.view_info("a.png", subfolder="", folder="output").modified_ns is None


def test_the_end_of_a_file_is_asked_for_with_a_negative_number(peer: Peer) -> None:
    tail = "Content-Range: bytes 4-11/12"
    assert got(peer, "206 Partial", tail, "Content-Length: 8", start=-8) == b"12345678"
    assert got(peer, "206 Partial", "Content-Range: bytes 0-7/8", "Content-Length: 8", start=-9)
    with pytest.raises(RemoteFileError, match="another part"):
        got(peer, "206 Partial", tail, "Content-Length: 8", start=-9)


@pytest.mark.parametrize(
    ("header", "modified_s"),
    [
        ('ETag: "2540be400-8"', 10),
        ("Last-Modified: Thu, 01 Jan 1970 00:00:10 GMT", 10),
        ('ETag: W/"2540be400-8"', None),
        ("Last-Modified: yesterday", None),
        ("Last-Modified: ", None),
    ],
)
def test_the_time_is_read_from_either_header(peer: Peer, header: str, modified_s: int | None) -> None:
    peer.answers["GET /view"] = (
        f"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n{header}\r\nConnection: close\r\n\r\n12345678".encode()
    )
    client = ComfyUIClient(peer.url, read_timeout_s=5)
    with client.view("a.png", subfolder="", folder="output") as viewed:
        assert viewed.modified_s == modified_s
