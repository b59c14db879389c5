"""A sandbox ComfyUI behind a local port, with a relay between them that can be cut."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
import websocket

from comfyui_workflow.access.connection_limits import ConnectionLimits
from comfyui_workflow.errors import WorkflowError
from comfyui_workflow.proxy.model import LIMITS, ClientProtocol, PortPolicy, PortState, PortWanted
from comfyui_workflow.proxy.ports import LocalPorts
from tests.proxy.relay import Relay
from tests.sandbox.running_comfyui import LIMIT_S, RunningComfyUI


@dataclass(frozen=True)
class TcpRoute:
    """A route to a server on this machine, without SSH."""

    base_url: str
    round_trip_s: float = 0.001

    async def connect(self, protocol_factory: Callable[[], ClientProtocol]) -> ClientProtocol:
        address = urlsplit(self.base_url)
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(protocol_factory, address.hostname, address.port)
        return protocol


@dataclass
class Lender:
    """Yields the route to the instance as `borrow` does, and counts the leases."""

    base_url: str
    error: WorkflowError | None = None
    lent: list[str] = field(default_factory=list)
    out_now: int = 0

    @contextmanager
    def borrow(self, instance_id: str) -> Iterator[TcpRoute]:
        self.lent.append(instance_id)
        if self.error:
            raise self.error
        self.out_now += 1
        try:
            yield TcpRoute(self.base_url)
        finally:
            self.out_now -= 1


@dataclass
class Setting:
    comfyui: RunningComfyUI
    relay: Relay
    lender: Lender
    ports: LocalPorts

    @property
    def state(self) -> PortState:
        state = self.ports.state("one")
        assert state
        return state

    @property
    def port(self) -> int:
        return self.state.port

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url(path), timeout=LIMIT_S, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> requests.Response:
        return requests.post(self.url(path), json=body, timeout=LIMIT_S, **options)


def connect(port: int, path: str = "/ws?clientId=me", **options: Any) -> websocket.WebSocket:
    return websocket.create_connection(
        f"ws://127.0.0.1:{port}{path}", timeout=LIMIT_S, suppress_origin="origin" not in options, **options
    )


@contextmanager
def local_port(
    comfyui: RunningComfyUI, limits: ConnectionLimits = LIMITS, policy: PortPolicy | None = None
) -> Iterator[Setting]:
    with Relay(comfyui.port) as relay:
        lender = Lender(relay.base_url)
        ports = LocalPorts(lender.borrow, limits, policy)
        ports.start()
        try:
            ports.set_ports({"one": PortWanted(name="primary", port=0)})
            yield Setting(comfyui, relay, lender, ports)
        finally:
            ports.stop()
