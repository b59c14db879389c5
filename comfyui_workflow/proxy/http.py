"""One request to ComfyUI and its answer, byte for byte, neither ever whole in memory."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable

import aiohttp
from aiohttp import web

from comfyui_workflow.proxy.error_responses import AnswerLost, InstanceUnreachable
from comfyui_workflow.proxy.headers import travelling
from comfyui_workflow.proxy.lease import InstanceLease, Upstream

BROKEN = (aiohttp.ClientError, OSError, TimeoutError)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LONGEST_HEARD_BYTES = 1024 * 1024


class RelayedAnswer:
    """The beginning of an answer that was passed on. `on_end` is called when all of it was."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self.status = 0
        self.body = bytearray()
        self.on_end = on_end

    def add(self, piece: bytes) -> None:
        if len(self.body) < LONGEST_HEARD_BYTES:
            self.body += piece


async def forward(
    request: web.BaseRequest,
    approach: InstanceLease,
    *,
    body: bytes | None = None,
    heard: RelayedAnswer | None = None,
    without: tuple[str, ...] = (),
) -> web.StreamResponse:
    """`body` is sent instead of the request's own; headers `without` are left out. A broken connection is
    replaced once, but a request that could change something is never sent twice.

    Raises: InstanceUnreachable, AnswerLost."""
    for is_last in (False, True):
        async with approach.use() as way:
            try:
                answer = await _send(request, approach, way, body, without)
            except InstanceUnreachable:
                if is_last:
                    raise
                continue
            try:
                approach.succeeded(way)
                return await _pass_on(request, answer, heard)
            finally:
                answer.release()
    raise AssertionError("the last try returns or raises")


async def body_of(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """As it comes in. A client that asks first is told to go on once the body is wanted."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
        request.transport.write(CONTINUE)
    async for piece in request.content.iter_any():
        yield piece


def cut(request: web.BaseRequest) -> None:
    """Hang up so that what was sent until now can not be taken for the whole."""
    if request.transport is None:
        return
    if raw := request.transport.get_extra_info("socket"):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


async def _send(
    request: web.BaseRequest,
    approach: InstanceLease,
    way: Upstream,
    body: bytes | None,
    without: tuple[str, ...],
) -> aiohttp.ClientResponse:
    """Raises: InstanceUnreachable where nothing was sent, or nothing that does anything; AnswerLost."""
    is_harmless = request.method in ("GET", "HEAD") and not request.body_exists
    try:
        if not is_harmless:
            await way.ping()
    except BROKEN as error:
        raise approach.forget(way, error) from error
    try:
        return await _start(request, way, body, without, way.kept if is_harmless else way.fresh)
    except BROKEN as error:
        gone = approach.forget(way, error)
        if is_harmless or isinstance(error, aiohttp.ClientConnectorError):
            raise gone from error
        raise AnswerLost(
            f"The connection to {approach.name} was lost while it was asked: "
            "it may or may not have done what it was asked for."
        ) from error


async def _start(
    request: web.BaseRequest,
    way: Upstream,
    body: bytes | None,
    without: tuple[str, ...],
    session: aiohttp.ClientSession,
) -> aiohttp.ClientResponse:
    is_streamed = body is None and request.body_exists
    expects = request.headers.get("Expect", "").lower() == "100-continue"
    ours = ("expect", *without, *(() if body is None else ("content-length",)))
    headers = travelling(request.raw_headers, *ours)
    return await session.request(
        request.method,
        way.url(request.raw_path),
        headers=headers,
        data=body_of(request) if is_streamed else body,
        allow_redirects=False,
        expect100=expects and is_streamed,
    )


async def _pass_on(
    request: web.BaseRequest, answer: aiohttp.ClientResponse, heard: RelayedAnswer | None
) -> web.StreamResponse:
    response = web.StreamResponse(
        status=answer.status, reason=answer.reason, headers=travelling(answer.raw_headers)
    )
    await response.prepare(request)
    if heard:
        heard.status = answer.status
    try:
        async for piece in answer.content.iter_any():
            if heard:
                heard.add(piece)
            await response.write(piece)
    except (*BROKEN, asyncio.IncompleteReadError):
        cut(request)
        return response
    if heard:
        heard.on_end()
    await response.write_eof()
    return response
