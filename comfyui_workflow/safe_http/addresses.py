"""Address check for outgoing requests to URLs that users give. A host is accepted only if all addresses of
its name are public."""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from comfyui_workflow.errors import UrlRefused, WebUnavailable

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
SocketAddress = tuple[str, int] | tuple[str, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One resolved address of a host, in the form that the `socket` module takes."""

    family: int
    address: SocketAddress

    @property
    def ip(self) -> IpAddress:
        return ipaddress.ip_address(self.address[0])


Resolve = Callable[[str, int], Sequence[Endpoint]]
"""Returns every address of a host name. Raises: OSError (`socket.gaierror`), UnicodeError."""
AddressCheck = Callable[[IpAddress], bool]
_IPV4_COMPATIBLE = ipaddress.ip_network("::/96")


@cache
def _special_networks() -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    from AntiSSRF import IPAddressRanges  # noqa: PLC0415 - slow to import, and not needed to start

    return (*map(ipaddress.ip_network, IPAddressRanges.recommended_latest), _IPV4_COMPATIBLE)


def is_public(address: IpAddress) -> bool:
    """True if the address is in neither of two lists: Python's registry of special addresses, and the list of
    the AntiSSRF package. The second list also has addresses that are special by use (metadata services), and
    does not depend on the Python version."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    is_special = any(address in network for network in _special_networks())
    return address.is_global and not address.is_multicast and not is_special


def resolve_name(host: str, port: int) -> Sequence[Endpoint]:
    """Resolves the name with the resolver of the system, which has its own timeout."""
    return _endpoints(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


def known_addresses(host: str) -> Sequence[Endpoint]:
    """Returns the addresses of a host that needs no DNS query: a number in any notation (`127.1`,
    `0x7f000001`), or a name of this machine (`localhost`). Returns () for every other name."""
    is_local = f".{host.rstrip('.')}".endswith(".localhost")
    try:
        number = "127.0.0.1" if is_local else host
        return _endpoints(
            socket.getaddrinfo(number, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        )
    except (OSError, UnicodeError):
        return ()


def check_addresses(host: str, endpoints: Sequence[Endpoint], may_reach: AddressCheck) -> None:
    """Refuses a host if any of its addresses is not public: the owner of the name could make that address the
    only one. Raises: UrlRefused."""
    if not all(may_reach(endpoint.ip) for endpoint in endpoints):
        raise UrlRefused(
            f"{host} has an address that is not public. "
            "The server connects to it only with COMFYUI_WORKFLOW_PRIVATE_URLS=true"
        )


def checked_addresses(host: str, port: int, resolve: Resolve, may_reach: AddressCheck) -> Sequence[Endpoint]:
    """Resolves a host and checks every address. Raises: UrlRefused, WebUnavailable."""
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
