"""Small requests to ComfyUI over connections that are kept."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest

from comfyui_workflow.proxy import plain_requests
from comfyui_workflow.proxy.plain_requests import JOINED_BYTES, Answer, PlainConnections
from tests.proxy.scripted_server import GOOD
from tests.proxy.setting import TcpRoute

LIMIT_S = 10.0


@dataclass
class Server:
    """Answers the first requests of each connection with `answers`, and closes it at the next one."""

    answers: tuple[bytes, ...] = (GOOD,)
    requests: list[bytes] = field(default_factory=list)
    """Head and body of each request."""
    connection_count: int = 0
    has_lost_one: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection_count += 1
        for answer in (*self.answers, b""):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            body = await reader.readexactly(int(length[0].partition(b":")[2])) if length else b""
            self.requests.append(head + body)
            writer.write(answer)
        writer.close()
        self.has_lost_one.set()


@asynccontextmanager
async def connections(server: Server) -> AsyncIterator[PlainConnections]:
    async with (
        asyncio.timeout(LIMIT_S),
        await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening,
    ):
        port = listening.sockets[0].getsockname()[1]
        made = PlainConnections(TcpRoute(f"http://127.0.0.1:{port}"), {"X-Login": "pass"})
        try:
            yield made
        finally:
            made.close()


async def ask(made: PlainConnections, method: str = "GET", body: bytes | None = None) -> bytes:
    answer = await made.request(method, "/queue?a=%20", [(b"x-a", b"X-A", b"1")], body)
    return await read(answer)


async def read(answer: Answer) -> bytes:
    content = await answer.content.read()
    answer.release()
    return content


def test_a_request_is_written_as_it_is() -> None:
    async def main() -> list[bytes]:
        server = Server(answers=(GOOD,) * 3)
        async with connections(server) as made:
            host = made._added[b"host"]
            assert await ask(made) == await ask(made, "POST") == b"ok"
            assert await ask(made, "POST", b"12") == b"ok"
        assert server.connection_count == 1
        return [each.replace(host, b"Host: here\r\n") for each in server.requests]

    common = b" /queue?a=%20 HTTP/1.1\r\nX-A: 1\r\nHost: here\r\nX-Login: pass\r\n"
    assert asyncio.run(main()) == [
        b"GET" + common + b"\r\n",
        b"POST" + common + b"Content-Length: 0\r\n\r\n",
        b"POST" + common + b"Content-Length: 2\r\n\r\n12",
    ]


def test_a_long_body_arrives() -> None:
    async def main() -> None:
        server = Server()
        async with connections(server) as made:
            await ask(made, "POST", bytes(JOINED_BYTES + 1))
        assert server.requests[0].endswith(b"\r\n\r\n" + bytes(JOINED_BYTES + 1))

    asyncio.run(main())


def test_what_only_asks_is_asked_again_over_a_new_connection() -> None:
    async def main() -> None:
        server = Server()
        async with connections(server) as made:
            assert [await ask(made), await ask(made)] == [b"ok", b"ok"]
        assert (len(server.requests), server.connection_count) == (3, 2)

    asyncio.run(main())


def test_what_does_something_is_not_sent_again() -> None:
    async def main() -> None:
        server = Server()
        async with connections(server) as made:
            assert await ask(made, "POST", b"1") == b"ok"
            with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
                await ask(made, "POST", b"2")
        assert [each[-1:] for each in server.requests] == [b"1", b"2"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("method", "answer", "content"),
    [
        ("GET", b"HTTP/1.1 103 Early Hints\r\n\r\n" + GOOD, b"ok"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b""),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
    ],
)
def test_a_connection_is_kept_after_a_response(method: str, answer: bytes, content: bytes) -> None:
    async def main() -> None:
        server = Server(answers=(answer, answer))
        async with connections(server) as made:
            assert [await ask(made, method), await ask(made, method)] == [content, content]
        assert server.connection_count == 1

    asyncio.run(main())


@pytest.mark.parametrize("answer", [GOOD[:-1], GOOD])
def test_a_response_that_is_not_read_ends_its_connection(answer: bytes) -> None:
    async def main() -> None:
        server = Server(answers=(answer, GOOD))
        async with connections(server) as made:
            unread = await made.request("GET", "/", [], None)
            assert (unread.status, unread.content_length) == (200, 2)
            unread.release()
            await server.has_lost_one.wait()

    asyncio.run(main())


def test_what_is_no_http_is_told() -> None:
    async def main() -> None:
        async with connections(Server(answers=(b"SSH-2.0-OpenSSH\r\n\r\n",))) as made:
            with pytest.raises(aiohttp.ClientError):
                await ask(made)

    asyncio.run(main())


def test_an_unused_connection_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_requests, "KEPT_FOR_S", 0.01)

    async def main() -> None:
        server = Server()
        async with connections(server) as made:
            await ask(made)
            await server.has_lost_one.wait()
        assert len(server.requests) == 1

    asyncio.run(main())
