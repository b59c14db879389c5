"""A websocket server that sends what a test sets, and records what it receives."""

import asyncio
import threading
from typing import Any, Self

from aiohttp import WSMsgType, web

from tests.sandbox.running_comfyui import LIMIT_S, wait_until


class SocketServer:
    """`sockets` are all sockets that were ever opened, in order; `said` has the frames of their clients."""

    def __init__(self) -> None:
        self.sockets: list[web.WebSocketResponse] = []
        self.requests: list[web.Request] = []
        self.said: list[Any] = []
        self.closed_with: list[int | None] = []
        self.base_url = ""
        self._may_answer = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(self, *exception: object) -> None:
        for number in range(len(self.sockets)):
            self.cut(number)
        assert self._runner
        self._do(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT_S)
        self._loop.close()

    def wait_for_sockets(self, count: int) -> None:
        wait_until(lambda: len(self.sockets) >= count, what=f"{count} sockets")

    def send(self, frame: str | bytes, number: int = -1) -> None:
        self.wait_for_sockets(max(1, number + 1))
        socket = self.sockets[number]
        self._do(socket.send_str(frame) if isinstance(frame, str) else socket.send_bytes(frame))

    def answer_prompts(self) -> None:
        """Answers the prompts that were submitted, and all later ones. Before this call they wait for their
        response."""
        self._loop.call_soon_threadsafe(self._may_answer.set)

    def close(self, code: int, reason: bytes, number: int = -1) -> None:
        self.wait_for_sockets(1)
        self._do(self.sockets[number].close(code=code, message=reason))

    def cut(self, number: int = -1) -> None:
        self.wait_for_sockets(max(1, number + 1))
        transport = self.requests[number].transport
        if transport:
            self._loop.call_soon_threadsafe(transport.abort)

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT_S)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/prompt", self._prompt)
        app.router.add_post("/prompt", self._submit)
        app.router.add_get("/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _prompt(self, request: web.Request) -> web.Response:
        return web.json_response({})

    async def _submit(self, request: web.Request) -> web.Response:
        self.said.append(await request.json())
        await self._may_answer.wait()
        return web.json_response({"prompt_id": "p", "number": 1, "node_errors": {}})

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("second",))
        await socket.prepare(request)
        self.requests.append(request)
        self.sockets.append(socket)
        async for message in socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                self.said.append(message.data)
        self.closed_with.append(socket.close_code)
        return socket
