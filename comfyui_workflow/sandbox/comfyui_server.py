"""HTTP server of the sandbox: a small ComfyUI that implements the protocol and executes graphs on the CPU.

It imitates ComfyUI 0.33.0, or one of the older versions of `versions.py`.

How it works: aiohttp serves the routes (`prompt_routes.py`, `job_routes.py`, `machine_routes.py`), each also
under `/api`. One worker thread executes the queued prompts (`engine.py`). Middlewares check the origin of
requests as ComfyUI does, log the exceptions of handlers, and simulate faults (`misbehaviour.py`).
"""

import asyncio
from pathlib import Path

from aiohttp import web

from comfyui_workflow.sandbox.backend import Backend
from comfyui_workflow.sandbox.faults import FaultBoard
from comfyui_workflow.sandbox.job_routes import JobRoutes
from comfyui_workflow.sandbox.machine_routes import MachineRoutes, no_such_page
from comfyui_workflow.sandbox.misbehaviour import MisbehaviourRoutes, log_errors, misbehave
from comfyui_workflow.sandbox.node import Folders, NodeClasses
from comfyui_workflow.sandbox.origin_guard import guard_origin
from comfyui_workflow.sandbox.prompt_routes import PromptRoutes

_LARGEST_BODY_BYTES = 100 * 1024 * 1024


class ComfyUIServer:
    """One sandbox ComfyUI on one port.

    A JSON line is appended to `execution_log` at the start and at the end of each executed prompt.
    `preview_method` is "auto" (previews while nodes run) or "none". Call `start` and `stop` on the same event
    loop; a daemon thread executes the prompts. After a "restart" fault the server starts again on the same
    port.
    """

    def __init__(
        self,
        *,
        folders: Folders,
        node_classes: NodeClasses,
        execution_log: Path | None = None,
        preview_method: str = "auto",
    ) -> None:
        self._backend = Backend(
            folders=folders,
            node_classes=node_classes,
            execution_log=execution_log,
            preview_method=preview_method,
        )
        self._runner: web.AppRunner | None = None
        self._restarting: asyncio.Task[None] | None = None

    @property
    def faults(self) -> FaultBoard:
        """The active faults. POST /sandbox/faults changes them too."""
        return self._backend.faults

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Creates the directories, empties the temp one, listens, and returns the port (0: a free one)."""
        self._backend.begin()
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self._backend.address = (host, self._runner.addresses[0][1])
        return self._backend.address[1]

    async def stop(self) -> None:
        """Aborts all connections, abandons the running prompt, and closes the port."""
        if self._restarting:
            self._restarting.cancel()
        await self._go_down()

    def _app(self) -> web.Application:
        app = web.Application(
            middlewares=[
                log_errors(self._backend),
                guard_origin(self._backend.faults),
                misbehave(self._backend),
            ],
            client_max_size=_LARGEST_BODY_BYTES,
        )
        misbehaviour = MisbehaviourRoutes(self._backend, restart_soon=self._restart_soon)
        app.add_routes(misbehaviour.routes())
        groups = (PromptRoutes(self._backend), JobRoutes(self._backend), MachineRoutes(self._backend))
        for route in [route for group in groups for route in group.routes()]:
            app.add_routes([route, web.RouteDef(route.method, "/api" + route.path, route.handler, {})])
        app.router.add_get("/", _front_page)
        app.router.add_get("/{path:.*}", _no_page)
        return app

    def _restart_soon(self, down_s: float) -> None:
        self._restarting = asyncio.get_running_loop().create_task(self._restart(down_s))

    async def _restart(self, down_s: float) -> None:
        await self._go_down()
        await asyncio.sleep(down_s)
        await self.start(*self._backend.address)

    async def _go_down(self) -> None:
        runner, self._runner = self._runner, None
        if runner is None:
            return
        self._backend.end()
        for site in list(runner.sites):
            await site.stop()
        for connection in runner.server.connections if runner.server else ():
            if connection.transport:
                connection.transport.abort()
        await runner.cleanup()


async def _front_page(request: web.Request) -> web.StreamResponse:
    return web.Response(
        text="<!doctype html><title>ComfyUI sandbox</title>"
        "<p>A sandbox that speaks ComfyUI's protocol. It has no editor.</p>",
        content_type="text/html",
    )


async def _no_page(request: web.Request) -> web.StreamResponse:
    return no_such_page()
