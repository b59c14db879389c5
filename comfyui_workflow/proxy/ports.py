"""All local ports of this server, on one thread with one event loop.

LocalPorts(borrow, limits, policy, login)
    serve(own_routes)                       routes of this server at every port; to be called before start
    start(), stop()                         stop closes everything within about two seconds
    set_ports({instance_id: PortWanted})    opens and closes ports to match; idempotent
    state(instance_id) -> PortState | None  None for an instance that has no port here
"""

import asyncio
import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

from comfyui_workflow.access.connection_limits import ConnectionLimits
from comfyui_workflow.proxy.model import (
    LIMITS,
    Borrow,
    LoginOf,
    OwnRoutes,
    PortPolicy,
    PortState,
    PortWanted,
)

if TYPE_CHECKING:
    from comfyui_workflow.proxy.lease import Upstream
    from comfyui_workflow.proxy.port import LocalPort

log = logging.getLogger(__name__)

APPLY_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 2.0
LISTEN_AGAIN_AFTER_S = 10.0
"""Retry interval for ports that another program occupies."""


class LocalPorts:
    """Every method may be called from any thread. No port is opened before `start`, and no connection to an
    instance before its first request."""

    def __init__(
        self,
        borrow: Borrow,
        limits: ConnectionLimits = LIMITS,
        policy: PortPolicy | None = None,
        login: LoginOf = lambda _: {},
    ) -> None:
        self._borrow = borrow
        self._login = login
        self._policy = policy or PortPolicy()
        self._limits = limits
        self._own_routes: OwnRoutes | None = None
        self._ports: Mapping[str, LocalPort] = {}
        self._wanted: Mapping[str, PortWanted] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing_upstreams: list[Upstream] = []

    def serve(self, own_routes: OwnRoutes) -> None:
        self._own_routes = own_routes

    def start(self) -> None:
        self._policy.used_ports.load()
        started = threading.Event()
        work = partial(asyncio.run, self._serve(started))
        self._thread = threading.Thread(target=work, name="local ports", daemon=True)
        self._thread.start()
        started.wait(APPLY_TIMEOUT_S)
        self.set_ports(self._wanted)

    def stop(self) -> None:
        """Idempotent. A session that is still being opened is released as soon as it is open."""
        loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        until_s = time.monotonic() + STOP_TIMEOUT_S
        loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP_TIMEOUT_S)
        for upstream in self._closing_upstreams:
            upstream.join(max(0.0, until_s - time.monotonic()))

    def set_ports(self, wanted: Mapping[str, PortWanted]) -> None:
        """Opens and closes ports to match `wanted`. Waits until that is done, at most APPLY_TIMEOUT_S. Before
        `start` it only stores the configuration."""
        applied = self.follow(wanted)
        try:
            if applied is not None:
                applied.result(APPLY_TIMEOUT_S)
        except TimeoutError:
            log.warning(
                "the local ports have not changed within %.0f s; the change continues", APPLY_TIMEOUT_S
            )

    def follow(self, wanted: Mapping[str, PortWanted]) -> "Future[None] | None":
        """Like `set_ports`, but does not wait. Returns None before `start`."""
        self._wanted = dict(wanted)
        self._policy.used_ports.add(each.port for each in wanted.values())
        if self._loop is None:
            return None
        return asyncio.run_coroutine_threadsafe(self._apply(self._wanted), self._loop)

    def numbers(self) -> frozenset[int]:
        """Returns every port that is wanted, open, or was used before, also before this start of the
        server."""
        return self._policy.used_ports.all()

    def state(self, instance_id: str) -> PortState | None:
        port = self._ports.get(instance_id)
        return port.state if port else None

    async def _serve(self, started: threading.Event) -> None:
        self._stopping = asyncio.Event()
        self._changing = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        started.set()
        listening_again = asyncio.create_task(self._listen_again())
        await self._stopping.wait()
        listening_again.cancel()
        async with self._changing:
            ports, self._ports = list(self._ports.values()), {}
            closed = await asyncio.gather(*(port.close() for port in ports))
        self._closing_upstreams = [upstream for upstreams in closed for upstream in upstreams]

    async def _apply(self, wanted: Mapping[str, PortWanted]) -> None:
        """Closes ports first and opens the new ones afterwards: a port number may move to another
        instance."""
        if not (wanted or self._ports):
            return
        async with self._changing:
            staying = {key: port for key, port in self._ports.items() if wanted.get(key) == port.wanted}
            going = [port for key, port in self._ports.items() if key not in staying]
            await asyncio.gather(*(port.close() for port in going))
            self._ports = {key: staying.get(key) or self._new_port(key, each) for key, each in wanted.items()}
            for port in self._ports.values():
                await port.listen()
            self._policy.used_ports.add(port.state.port for port in self._ports.values())

    def _new_port(self, key: str, wanted: PortWanted) -> "LocalPort":
        from comfyui_workflow.proxy.own_routes import PortRoutes  # noqa: PLC0415 - as the next one
        from comfyui_workflow.proxy.port import Backend, LocalPort  # noqa: PLC0415 - slow, and rarely used

        own = self._own_routes
        backend = Backend(
            borrow=partial(self._borrow, key),
            login=partial(self._login, key),
            own=PortRoutes(routes=own, instance_id=key) if own else None,
        )
        return LocalPort(wanted, backend, self._policy, self._limits)

    async def _listen_again(self) -> None:
        while True:
            await asyncio.sleep(LISTEN_AGAIN_AFTER_S)
            await self._apply(self._wanted)
