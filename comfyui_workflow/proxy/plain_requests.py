"""Requests to an instance whose body is at hand, or that have none.

How it works. aiohttp's client session is made for much that a local port does not need: redirects, cookies,
traces, timeouts, bodies of any kind. For a small request it takes more time than everything else. So such a
request is written as bytes, all at once, and aiohttp only parses the response. Bodies that arrive in pieces,
and websockets, go through the session (`lease`).
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError, RawResponseMessage
from aiohttp.streams import StreamReader

from comfyui_workflow.proxy.model import Route
from comfyui_workflow.proxy.route_connector import connect

HARMLESS_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")
"""They change nothing, and have no body unless a length is given."""
KEPT_FOR_S = 15.0
"""How long an unused connection is kept open. Servers close idle connections too, some after five seconds."""
FRESH_FOR_S = 1.0
"""How long an unused connection may carry a request that must not be sent twice."""
JOINED_BYTES = 16 * 1024
"""A longer body is not copied to be written together with the head."""
LONGEST_LINE_BYTES = 64 * 1024
READ_BYTES = 256 * 1024
_SWITCHING_PROTOCOLS = 101

Header = tuple[bytes, bytes, bytes]
"""Name in lower case, name and value of a header, see `end_to_end_headers`."""


class Connection(ResponseHandler):
    """A connection to ComfyUI. `used_at_s` is the end of the last response, on the monotonic clock.
    `content` is the body of the current one."""

    content: StreamReader

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop())
        self.used_at_s = float("-inf")
        self._is_paused = False

    def pause_reading(self) -> None:
        self._is_paused = True
        super().pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Called for each piece that is read. aiohttp runs the parser even if it was not paused."""
        if self._is_paused:
            self._is_paused = False
            super().resume_reading(resume_parser)

    def is_usable(self, unused_s: float) -> bool:
        """True if it is open, and was in use in the last `unused_s` seconds."""
        age_s = time.monotonic() - self.used_at_s
        return age_s < unused_s and self.is_connected() and not self.should_close

    async def exchange(self, head: bytes, body: bytes, *, has_content: bool) -> RawResponseMessage:
        """Writes a request, and waits for the head of the response; its body is then in `content`.
        `has_content` is False if the response has no body whatever its head says.

        Raises: aiohttp.ClientError, OSError."""
        self.set_response_params(
            skip_payload=not has_content,
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=READ_BYTES,
            max_line_size=LONGEST_LINE_BYTES,
            max_field_size=LONGEST_LINE_BYTES,
        )
        if self.transport is None:
            raise aiohttp.ServerDisconnectedError
        if len(body) <= JOINED_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)
        try:
            while True:
                message, self.content = await self.read()
                if message.code >= 200 or message.code == _SWITCHING_PROTOCOLS:
                    return message
        except HttpProcessingError as error:
            raise aiohttp.ClientError(error.message) from error


@dataclass(kw_only=True)
class Answer:
    """A response whose head has arrived."""

    status: int
    reason: str
    raw_headers: tuple[tuple[bytes, bytes], ...]
    content: StreamReader
    content_length: int | None
    _connections: "PlainConnections"
    _connection: Connection | None = field(repr=False)

    def release(self) -> None:
        """Keeps the connection if the response was read to its end, else closes it. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._connections.give_back(connection, is_over=self.content.at_eof())


class PlainConnections:
    """The connections of one route. Belongs to the event loop."""

    def __init__(self, route: Route, login: Mapping[str, str]) -> None:
        """`login`: headers of all requests that do not have them already."""
        self._route = route
        host = urlsplit(route.base_url).netloc
        added = {"Host": host, **login}
        self._added = {
            name.lower().encode(): f"{name}: {value}\r\n".encode() for name, value in added.items()
        }
        self._unused: deque[Connection] = deque()
        """The one that was used last comes last."""
        self._closing: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def request(
        self, method: str, target: str, headers: Iterable[Header], body: bytes | None
    ) -> Answer:
        """Sends a request over an unused connection, or over a new one. A harmless request is sent again if
        that connection turns out to be dead; others are sent only over a connection that was in use a moment
        ago.

        Raises: NotConnected if nothing was sent; aiohttp.ClientError, OSError."""
        head = self._head(method, target, headers, body)
        is_harmless = method in HARMLESS_METHODS
        unused = self._take(KEPT_FOR_S if is_harmless else FRESH_FOR_S)
        if unused is not None:
            try:
                return await self._exchange(unused, method, head, body)
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                if not is_harmless:
                    raise
        return await self._exchange(await connect(self._route, Connection), method, head, body)

    def give_back(self, connection: Connection, *, is_over: bool) -> None:
        if not is_over or connection.should_close or self._is_closed:
            connection.close()
            return
        connection.used_at_s = time.monotonic()
        self._unused.append(connection)
        if self._closing is None:
            self._closing = asyncio.get_running_loop().call_later(KEPT_FOR_S, self._close_unused)

    def close(self) -> None:
        self._is_closed = True
        if self._closing:
            self._closing.cancel()
        while self._unused:
            self._unused.pop().close()

    def _close_unused(self) -> None:
        self._closing = None
        while self._unused and not self._unused[0].is_usable(KEPT_FOR_S):
            self._unused.popleft().close()
        if self._unused:
            self._closing = asyncio.get_running_loop().call_later(KEPT_FOR_S, self._close_unused)

    def _take(self, unused_s: float) -> Connection | None:
        while self._unused and not self._unused[-1].is_usable(KEPT_FOR_S):
            self._unused.pop().close()
        if self._unused and self._unused[-1].is_usable(unused_s):
            return self._unused.pop()
        return None

    async def _exchange(self, connection: Connection, method: str, head: bytes, body: bytes | None) -> Answer:
        try:
            message = await connection.exchange(head, body or b"", has_content=method != "HEAD")
        except BaseException:
            connection.close()
            raise
        length = message.headers.get("Content-Length")
        return Answer(
            status=message.code,
            reason=message.reason,
            raw_headers=message.raw_headers,
            content=connection.content,
            content_length=int(length) if length else None,
            _connections=self,
            _connection=connection,
        )

    def _head(self, method: str, target: str, headers: Iterable[Header], body: bytes | None) -> bytes:
        parts = [f"{method} {target} HTTP/1.1\r\n".encode("utf-8", "surrogateescape")]
        names = set()
        for lower, name, value in headers:
            if lower != b"content-length":
                names.add(lower)
                parts.append(b"%b: %b\r\n" % (name, value))
        parts += (line for lower, line in self._added.items() if lower not in names)
        if body is not None or method not in HARMLESS_METHODS:
            parts.append(b"Content-Length: %d\r\n" % len(body or b""))
        parts.append(b"\r\n")
        return b"".join(parts)
