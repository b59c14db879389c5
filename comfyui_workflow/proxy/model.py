"""Configuration and state of a local port."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from comfyui_workflow.access.connection_limits import ConnectionLimits
from comfyui_workflow.access.origins import Origin
from comfyui_workflow.access.peer_users import PeerUsers
from comfyui_workflow.proxy.used_ports import UsedPorts

LIMITS = ConnectionLimits(most=2_000)
"""Each client connection may need a connection to the instance."""

ClientProtocol = TypeVar("ClientProtocol", bound=asyncio.Protocol)


class Route(Protocol):
    """The way to the ComfyUI of an instance."""

    @property
    def base_url(self) -> str:
        """URL of ComfyUI, at which blocking clients reach it too."""

    @property
    def round_trip_s(self) -> float: ...

    async def connect(self, protocol_factory: Callable[[], ClientProtocol]) -> ClientProtocol:
        """Opens a connection to ComfyUI's port for a protocol of the running event loop. Raises: OSError,
        WorkflowError; then nothing was sent."""


Borrow = Callable[[str], AbstractContextManager[Route]]
"""Leases the session of the instance with that id, and yields the route to its ComfyUI: `with
borrow(instance_id) as route:`. May block: it is entered and left in a thread of its own. Raises:
WorkflowError with a message for clients."""

MOST_OWN_AT_ONCE = 8

LoginOf = Callable[[str], Mapping[str, str]]
"""Returns headers that pass the login before the ComfyUI of the instance with that id; none if there is no
login. Called while its session is borrowed."""


@dataclass(frozen=True, kw_only=True)
class PortPolicy:
    """Rules for the requests that local ports accept. `origins`: pages that may use the ports, besides each
    port's own pages. `hosts`: host names of requests, besides loopback names. `users`: local users who may
    connect without a token; other users need `token`, if one is set."""

    origins: frozenset[Origin] = frozenset()
    hosts: tuple[str, ...] = ()
    users: PeerUsers = field(default_factory=PeerUsers)
    token: str | None = None
    used_ports: UsedPorts = field(default_factory=UsedPorts)


@dataclass(frozen=True, kw_only=True)
class PortWanted:
    """Requested configuration of a port. `name` is the name of the instance, for messages. Port 0 selects a
    free port. `address` is the address of the instance: when it changes, all connections are closed, and new
    ones go to the new address."""

    name: str
    port: int
    address: str = ""


@dataclass(frozen=True, kw_only=True)
class PortState:
    """State of a port. `trouble` is a sentence: why the port cannot be opened, or why the instance could not
    be reached last time."""

    port: int
    is_listening: bool
    trouble: str | None
    open_requests: int
    open_sockets: int


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
    return ThreadPoolExecutor(MOST_OWN_AT_ONCE, thread_name_prefix="routes at local ports")


@dataclass(frozen=True, kw_only=True)
class OwnRoutes:
    prefixes: tuple[str, ...]
    answer: Callable[[OwnRequest], OwnAnswer]
    """May block."""
    most_bytes: int
    """Maximum size of a request body."""
    pool: ThreadPoolExecutor = field(default_factory=_new_pool)
