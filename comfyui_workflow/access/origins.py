"""Origins of web pages (RFC 6454): scheme, host and port, as browsers tell them in `Origin` and `Referer`."""

import ipaddress
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(r"(https?)://([^/?#@\\\s]+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """In one spelling: lower case, the port always told."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """As a browser writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_usual = self.port == _DEFAULT_PORTS[self.scheme]
        return f"{self.scheme}://{host}" if is_usual else f"{self.scheme}://{host}:{self.port}"


def parse_origin(text: str) -> Origin | None:
    """None for `null`, and for whatever is not exactly `http(s)://host[:port]`."""
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme = found[1].lower()
    try:
        parts = urlsplit(f"//{found[2]}")
        host, port = parts.hostname, parts.port
    except ValueError:  # half an IPv6 address, a port that is none
        return None
    if not host or port == 0:
        return None
    return Origin(scheme=scheme, host=host, port=port or _DEFAULT_PORTS[scheme])


def origin_of_url(url: str) -> Origin | None:
    """The origin of a page by its address, as in `Referer`."""
    found = _ORIGIN.match(url)
    return None if found is None else parse_origin(found[0])


def origins_of_host(host: str) -> frozenset[Origin]:
    """Origins of pages from a server that is called by this `Host` header, with TLS or without."""
    found = (parse_origin(f"{scheme}://{host}") for scheme in _DEFAULT_PORTS)
    return frozenset(origin for origin in found if origin is not None)


def is_at_local_port(origin: Origin, ports: Collection[int]) -> bool:
    """Whether its pages come from one of these ports of this machine, however the machine is called."""
    return origin.port in ports and is_loopback_name(origin.host)


def is_loopback_name(name: str) -> bool:
    """Whether a host name or an address leads to this machine itself, in any spelling."""
    plain = name.rstrip(".").lower()
    if plain == "localhost" or plain.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(plain)
    except ValueError:
        return _is_loopback_number(plain)
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def _is_loopback_number(name: str) -> bool:
    """Spellings of IPv4 that few use: `127.1`, `0x7f.1`, `2130706433`."""
    if not re.fullmatch(r"[0-9a-fx.]+", name):
        return False
    try:
        return socket.inet_aton(name)[0] in (0, 127)
    except OSError:
        return False
