"""Forwards one HTTP request to ComfyUI and the response to the client, byte for byte, in pieces: neither is
ever whole in memory."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext

import aiohttp
from aiohttp import web

from comfyui_workflow.proxy.error_responses import AnswerLost, InstanceUnreachable
from comfyui_workflow.proxy.headers import end_to_end_headers, forwarded_headers
from comfyui_workflow.proxy.lease import BROKEN, InstanceLease, Upstream
from comfyui_workflow.proxy.plain_requests import Answer
from comfyui_workflow.proxy.route_connector import NotConnected

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
MAX_RELAYED_BYTES = 1024 * 1024

AnyAnswer = Answer | aiohttp.ClientResponse
OnAnswer = Callable[[int, bytes], None]
"""Gets the status and the first MAX_RELAYED_BYTES of a complete response."""


async def forward(
    request: web.BaseRequest,
    lease: InstanceLease,
    *,
    body: bytes | None = None,
    on_answer: OnAnswer | None = None,
    without: tuple[str, ...] = (),
) -> web.StreamResponse:
    """Forwards a request and returns the response. `body` replaces the request's own body; headers in
    `without` are not sent. A broken connection is replaced once, but a request that may change something is
    never sent twice.

    Raises: InstanceUnreachable, AnswerLost.
    """
    for is_last in (False, True):
        async with lease.use() as upstream, nullcontext() if body is None else upstream.turns.taken():
            try:
                answer = await _send(request, lease, upstream, body, without)
            except InstanceUnreachable:
                if is_last:
                    raise
                continue
            try:
                lease.succeeded(upstream)
                return await _pass_on(request, answer, on_answer)
            finally:
                answer.release()
    raise AssertionError("the last try returns or raises")


async def body_of(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """Yields the request body as it arrives."""
    allow_body(request)
    async for piece in request.content.iter_any():
        yield piece


def allow_body(request: web.BaseRequest) -> None:
    """Sends `100 Continue` to a client that expects it. To be called once the body is wanted."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
        request.transport.write(CONTINUE)


def cut(request: web.BaseRequest) -> None:
    """Resets the connection, so that the client cannot mistake a partial response for a complete one."""
    if request.transport is None:
        return
    if raw := request.transport.get_extra_info("socket"):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


async def _send(
    request: web.BaseRequest,
    lease: InstanceLease,
    upstream: Upstream,
    body: bytes | None,
    without: tuple[str, ...],
) -> AnyAnswer:
    """Raises: InstanceUnreachable if nothing was sent, or only a request without side effects; AnswerLost."""
    is_harmless = request.method in ("GET", "HEAD") and not request.body_exists
    try:
        if not is_harmless:
            await upstream.ping()
    except BROKEN as error:
        raise lease.forget(upstream, error) from error
    try:
        if body is None and request.body_exists:
            return await _start_streaming(request, upstream, without)
        headers = end_to_end_headers(request.raw_headers, "expect", *without)
        return await upstream.plain.request(request.method, request.raw_path, headers, body)
    except BROKEN as error:
        gone = lease.forget(upstream, error)
        if is_harmless or isinstance(error, NotConnected):
            raise gone from error
        raise AnswerLost(
            f"The connection to {lease.name} was lost before the response came: "
            "the request may or may not have taken effect."
        ) from error


async def _start_streaming(
    request: web.BaseRequest, upstream: Upstream, without: tuple[str, ...]
) -> aiohttp.ClientResponse:
    """Sends a request whose body is still arriving."""
    return await upstream.fresh.request(
        request.method,
        upstream.url(request.raw_path),
        headers=forwarded_headers(request.raw_headers, "expect", *without),
        data=body_of(request),
        allow_redirects=False,
        expect100=request.headers.get("Expect", "").lower() == "100-continue",
    )


class _HeldHead(web.StreamResponse):
    """Sends its head with the first piece of its body. Many servers send them apart, and each packet costs
    time here and at the client."""

    _send_headers_immediately = False  # as in web.Response


async def _pass_on(
    request: web.BaseRequest, answer: AnyAnswer, on_answer: OnAnswer | None
) -> web.StreamResponse:
    kind = _HeldHead if _has_known_body(request, answer) else web.StreamResponse
    headers = forwarded_headers(answer.raw_headers)
    response = kind(status=answer.status, reason=answer.reason, headers=headers)
    await response.prepare(request)
    beginning = bytearray()
    try:
        async for piece in answer.content.iter_any():
            if on_answer and len(beginning) < MAX_RELAYED_BYTES:
                beginning += piece
            await response.write(piece)
    except (*BROKEN, asyncio.IncompleteReadError):
        cut(request)
        return response
    if on_answer:
        on_answer(answer.status, bytes(beginning))
    await response.write_eof()
    return response


def _has_known_body(request: web.BaseRequest, answer: AnyAnswer) -> bool:
    """True if the response has a body, and its length is known. An endless one, like a stream of events, may
    begin much later than its head."""
    has_body = request.method != "HEAD" and answer.status not in (204, 304)
    return has_body and bool(answer.content_length)
