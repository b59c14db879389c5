"""What is wanted of a local port, and how it stands."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from comfyui_workflow.access.origins import Origin
from comfyui_workflow.access.peer_users import PeerUsers
from comfyui_workflow.proxy.used_ports import UsedPorts

Borrow = Callable[[str], AbstractContextManager[str]]
"""The way to the instance of that id, opened if it is not: `with borrow(instance_id) as base_url:`.
May block; is entered and left in a thread of its own. Raises: WorkflowError, in words for clients."""


@dataclass(frozen=True, kw_only=True)
class PortPolicy:
    """Requests that local ports accept. `origins`: of pages that may use them, besides each port's own.
    `users`: those of this machine who may; others need the `token`, where there is one."""

    origins: frozenset[Origin] = frozenset()
    users: PeerUsers = field(default_factory=PeerUsers)
    token: str | None = None
    used_ports: UsedPorts = field(default_factory=UsedPorts)


@dataclass(frozen=True, kw_only=True)
class PortWanted:
    """`name` is the instance's, for sentences. Port 0 asks for a free one. `address` tells where the instance
    is: once it is another, everybody is cut off, and who comes again is led there."""

    name: str
    port: int
    address: str = ""


@dataclass(frozen=True, kw_only=True)
class PortState:
    """`trouble` is a sentence: why the port cannot be had, or the instance could not be reached lately."""

    port: int
    is_listening: bool
    trouble: str | None
    open_requests: int
    open_sockets: int
