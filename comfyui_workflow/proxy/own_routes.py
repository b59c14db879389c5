"""Routes of this server at a local port: requests to them are answered here and not by the instance.

How it works: the WSGI app of the server answers them, in a thread, because it may wait. It learns from the
WSGI environment which instance the port leads to. All other rules of the server hold, also for the token:
pages of the port belong to the instance, so they are refused.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from comfyui_workflow.proxy import error_responses
from comfyui_workflow.proxy.headers import HOP_BY_HOP_HEADERS
from comfyui_workflow.proxy.http import allow_body

MOST_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class OwnRequest:
    instance_id: str
    method: str
    path: str
    """Raw, with the query."""
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class OwnAnswer:
    status: int
    headers: Iterable[tuple[str, str]]
    body: bytes


def _new_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="routes at local ports")


@dataclass(frozen=True, kw_only=True)
class OwnRoutes:
    prefixes: tuple[str, ...]
    answer: Callable[[OwnRequest], OwnAnswer]
    """May block."""
    most_bytes: int
    """Maximum size of a request body."""
    pool: ThreadPoolExecutor = field(default_factory=_new_pool)

    def at_port_of(self, instance_id: str) -> "PortRoutes":
        return PortRoutes(routes=self, instance_id=instance_id)


@dataclass(frozen=True, kw_only=True)
class PortRoutes:
    """The routes at the port of one instance."""

    routes: OwnRoutes
    instance_id: str

    def has(self, request: web.BaseRequest) -> bool:
        path = request.raw_path.partition("?")[0]
        return any(path == prefix or path.startswith(f"{prefix}/") for prefix in self.routes.prefixes)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await self._body(request)
        if body is None:
            limit_mb = self.routes.most_bytes // 2**20
            return error_responses.refused_response(f"The body is larger than {limit_mb} MB", 413)
        given = OwnRequest(
            instance_id=self.instance_id,
            method=request.method,
            path=request.raw_path,
            headers=tuple(_headers(request.headers)),
            body=body,
        )
        answer = await asyncio.get_running_loop().run_in_executor(self.routes.pool, self.routes.answer, given)
        headers = [(name, value) for name, value in answer.headers if name.lower() not in HOP_BY_HOP_HEADERS]
        return await _sent(request, answer, headers)

    async def _body(self, request: web.BaseRequest) -> bytes | None:
        """Returns the body; None if it is too large."""
        if (request.content_length or 0) > self.routes.most_bytes:
            return None
        allow_body(request)
        content = bytearray()
        async for piece in request.content.iter_any():
            content += piece
            if len(content) > self.routes.most_bytes:
                return None
        return bytes(content)


def _headers(headers: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    dropped = {*HOP_BY_HOP_HEADERS, "content-length", "expect"}
    return ((name, str(value)) for name, value in headers.items() if name.lower() not in dropped)


async def _sent(
    request: web.BaseRequest, answer: OwnAnswer, headers: Iterable[tuple[str, str]]
) -> web.StreamResponse:
    response = web.Response(status=answer.status, headers=list(headers), body=answer.body)
    await response.prepare(request)
    await response.write_eof()
    return response
