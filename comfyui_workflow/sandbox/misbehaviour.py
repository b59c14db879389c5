"""Routes that set the simulated faults, and the wrong HTTP responses."""

import asyncio
import traceback
import zlib
from collections.abc import Awaitable, Callable

import pydantic
from aiohttp import web
from aiohttp.typedefs import Middleware

from comfyui_workflow.sandbox.backend import Backend

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SERVER_ERROR = "500 Internal Server Error\n\nServer got itself in trouble"
_BOMB_BYTES = 1_000_000_000
_PIECE_BYTES = 1_000_000
_DRIP_S = 0.02
_PROXY_PAGE = "<!doctype html><html><body><h1>Your machine is being prepared</h1></body></html>"


class MisbehaviourRoutes:
    """POST and GET /sandbox/faults, POST /sandbox/reset. No simulated fault affects these routes."""

    def __init__(self, backend: Backend, *, restart_soon: Callable[[float], None]) -> None:
        self._backend = backend
        self._restart_soon = restart_soon

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/sandbox/faults", self.show),
            web.post("/sandbox/faults", self.change),
            web.post("/sandbox/reset", self.reset),
        ]

    async def show(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._backend.faults.now.model_dump())

    async def change(self, request: web.Request) -> web.StreamResponse:
        """Sets the faults in the body. The response contains all faults, and is sent before a restart."""
        faults = self._backend.faults
        try:
            faults.change(await request.json())
        except pydantic.ValidationError as error:
            return web.json_response({"error": str(error)}, status=400)
        if faults.now.close_websockets:
            faults.now.close_websockets = False
            self._backend.hub.cut()
        self._backend.engine.queue.wake()
        response = web.json_response(faults.now.model_dump())
        await response.prepare(request)
        await response.write_eof()
        if restart := faults.now.restart:
            faults.now.restart = None
            self._restart_soon(restart.down_s)
        return response

    async def reset(self, request: web.Request) -> web.StreamResponse:
        await self._backend.reset()
        return web.json_response({})


def log_errors(backend: Backend) -> Middleware:
    """Returns the middleware that writes the traceback of a handler's exception to the log."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException:
            raise
        except Exception:  # noqa: BLE001 - as in ComfyUI, any exception is a status 500
            text = f"Error handling request from {request.remote}\n{traceback.format_exc()}".rstrip()
            backend.engine.log.write(text, level="ERROR")
            return web.Response(status=500, text=_SERVER_ERROR)

    return middleware


def misbehave(backend: Backend) -> Middleware:
    """Returns the middleware that simulates a frozen server, and that sends the wrong responses."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/sandbox/"):
            return await handler(request)
        while backend.faults.frozen_for_s:
            await asyncio.sleep(min(0.1, backend.faults.frozen_for_s))
        answer = backend.faults.take_answer(request.method, request.path.removeprefix("/api"))
        if answer is None:
            return await handler(request)
        if answer.mode == "late":
            await request.read()
            backend.run_later(answer.after_s, lambda: handler(request))
            return _dropped(request, web.Response())
        return await wrong_answer(answer.mode, request, handler)

    return middleware


async def wrong_answer(mode: str, request: web.Request, handler: Handler) -> web.StreamResponse:
    """Sends the wrong response of a mode; `WrongAnswer` describes the modes."""
    match mode:
        case "half_json":
            return _half(await handler(request))
        case "drop":
            return _dropped(request, await handler(request))
        case "bomb":
            return await _bomb(request)
        case "drip":
            return await _drip(request)
        case _:
            return _unprocessed_answer(mode)


def _unprocessed_answer(mode: str) -> web.Response:
    """Returns the response of a mode in which the request is not processed."""
    match mode:
        case "500":
            return web.Response(status=500, text=_SERVER_ERROR)
        case "html" | "203":
            status = 203 if mode == "203" else 200
            return web.Response(text=_PROXY_PAGE, content_type="text/html", status=status)
        case "redirect":
            return web.Response(text="302: Found", headers={"Location": "/login"}, status=302)
        case _:
            return web.Response()


async def _bomb(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Encoding": "gzip"})
    await response.prepare(request)
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for _ in range(_BOMB_BYTES // _PIECE_BYTES):
        await response.write(packer.compress(bytes(_PIECE_BYTES)))
    await response.write(packer.flush())
    return response


async def _drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:  # ends when the client disconnects
        await response.write(b" ")
        await asyncio.sleep(_DRIP_S)


def _half(response: web.StreamResponse) -> web.StreamResponse:
    body = response.body if isinstance(response, web.Response) else None
    if not isinstance(body, bytes):
        return response
    return web.Response(body=body[: len(body) // 2], content_type=response.content_type)


def _dropped(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Aborts the connection, so the client does not receive the response."""
    if request.transport:
        request.transport.abort()
    return response
