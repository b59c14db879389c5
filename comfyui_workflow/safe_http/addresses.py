"""Which addresses a URL of somebody else may lead to: public ones alone, all that its name has."""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from AntiSSRF import IPAddressRanges

from comfyui_workflow.errors import UrlRefused, WebUnavailable

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
SocketAddress = tuple[str, int] | tuple[str, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One address of a name, as a socket takes it."""

    family: int
    address: SocketAddress

    @property
    def ip(self) -> IpAddress:
        return ipaddress.ip_address(self.address[0])


Resolve = Callable[[str, int], Sequence[Endpoint]]
"""Every address of a name. Raises: OSError (`socket.gaierror`), UnicodeError."""
Judge = Callable[[IpAddress], bool]
_OTHER_SPELLINGS_OF_IPV4 = ipaddress.ip_network("::/96")
_SPECIAL = (*map(ipaddress.ip_network, IPAddressRanges.recommended_latest), _OTHER_SPELLINGS_OF_IPV4)


def is_public(address: IpAddress) -> bool:
    """By the registry of special addresses that Python has, and by a list that is kept for this purpose: it
    has what is special by use (metadata services), too, and does not depend on how old this Python is."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    is_special = any(address in network for network in _SPECIAL)
    return address.is_global and not address.is_multicast and not is_special


def resolve_name(host: str, port: int) -> Sequence[Endpoint]:
    """As the system does it, with its own time limit."""
    return _endpoints(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


def known_addresses(host: str) -> Sequence[Endpoint]:
    """Of a host that is written as a number, however it is written (`127.1`, `0x7f000001`), and of this
    machine; of any other name none. Nobody is asked."""
    is_local = f".{host.rstrip('.')}".endswith(".localhost")
    try:
        number = "127.0.0.1" if is_local else host
        return _endpoints(
            socket.getaddrinfo(number, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        )
    except (OSError, UnicodeError):
        return ()


def check_addresses(host: str, endpoints: Sequence[Endpoint], may_reach: Judge) -> None:
    """One that is not public spoils all: who can make a name have it can make it the only one.
    Raises: UrlRefused."""
    if not all(may_reach(endpoint.ip) for endpoint in endpoints):
        raise UrlRefused(
            f"{host} leads to an address that is not public. "
            "Only with COMFYUI_WORKFLOW_WEBHOOK_PRIVATE=true does the server go there"
        )


def checked_addresses(host: str, port: int, resolve: Resolve, may_reach: Judge) -> Sequence[Endpoint]:
    """Every address of a host. Raises: UrlRefused, WebUnavailable."""
    check_addresses(host, known_addresses(host), may_reach)
    try:
        endpoints = resolve(host, port)
    except UnicodeError as error:
        raise UrlRefused("The URL names no host that can be reached") from error
    except OSError as error:
        raise WebUnavailable(f"The name {host} cannot be resolved") from error
    if not endpoints:
        raise WebUnavailable(f"The name {host} has no address")
    check_addresses(host, endpoints, may_reach)
    return endpoints


def _endpoints(found: Sequence[tuple[int, int, int, str, tuple[object, ...]]]) -> list[Endpoint]:
    return [Endpoint(family=family, address=address) for family, _, _, _, address in found]  # type: ignore[arg-type]
