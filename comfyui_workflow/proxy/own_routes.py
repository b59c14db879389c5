"""Routes of this server at a local port: requests to them are answered here and not by the instance.

How it works: the WSGI app of the server answers them, in a thread, because it may wait. It learns from the
WSGI environment which instance the port leads to. All other rules of the server hold, also for the token:
pages of the port belong to the instance, so they are refused.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from comfyui_workflow.proxy import error_responses
from comfyui_workflow.proxy.headers import HOP_BY_HOP_HEADERS
from comfyui_workflow.proxy.http import allow_body
from comfyui_workflow.proxy.model import OwnAnswer, OwnRequest, OwnRoutes


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
        headers = [(name, value) for name, value in answer.headers if not _is_hop_by_hop(name)]
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
    pairs = ((name, str(value)) for name, value in headers.items() if not _is_hop_by_hop(name))
    return (pair for pair in pairs if pair[0].lower() not in ("content-length", "expect"))


def _is_hop_by_hop(name: str) -> bool:
    return name.lower().encode("latin-1", "replace") in HOP_BY_HOP_HEADERS


async def _sent(
    request: web.BaseRequest, answer: OwnAnswer, headers: Iterable[tuple[str, str]]
) -> web.StreamResponse:
    response = web.Response(status=answer.status, headers=list(headers), body=answer.body)
    await response.prepare(request)
    await response.write_eof()
    return response
