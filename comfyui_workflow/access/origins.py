"""Origins of web pages (RFC 6454): scheme, host and port, as browsers send them in `Origin` and `Referer`."""

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
    """An origin in canonical form: lower case, with an explicit port."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """Returns the origin as a browser writes it: without a default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_usual = self.port == _DEFAULT_PORTS[self.scheme]
        return f"{self.scheme}://{host}" if is_usual else f"{self.scheme}://{host}:{self.port}"


def parse_origin(text: str) -> Origin | None:
    """Parses `http(s)://host[:port]`. Returns None for any other text, and for `null`."""
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme = found[1].lower()
    try:
        parts = urlsplit(f"//{found[2]}")
        host, port = parts.hostname, parts.port
    except ValueError:  # an incomplete IPv6 address or an invalid port
        return None
    if not host or port == 0:
        return None
    return Origin(scheme=scheme, host=host, port=port or _DEFAULT_PORTS[scheme])


def origin_of_url(url: str) -> Origin | None:
    """Returns the origin of the URL of a page, as in `Referer`."""
    found = _ORIGIN.match(url)
    return None if found is None else parse_origin(found[0])


def origins_of_host(host: str) -> frozenset[Origin]:
    """Returns the origins of pages of the server with this `Host` header, with and without TLS."""
    found = (parse_origin(f"{scheme}://{host}") for scheme in _DEFAULT_PORTS)
    return frozenset(origin for origin in found if origin is not None)


def is_at_local_port(origin: Origin, ports: Collection[int], hosts: Collection[str] = ()) -> bool:
    """True if the origin is one of these ports of this machine, under any name of the machine: a loopback
    name, or one of `hosts`."""
    return origin.port in ports and is_name_of_this_machine(origin.host, hosts)


def is_name_of_this_machine(name: str, hosts: Collection[str]) -> bool:
    """True for loopback names, and for the names in `hosts` in any case."""
    return is_loopback_name(name) or name.rstrip(".").lower() in (each.rstrip(".").lower() for each in hosts)


def is_loopback_name(name: str) -> bool:
    """True if a host name or an address, in any spelling, is a loopback or unspecified address."""
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
    """True for unusual spellings of IPv4 loopback addresses: `127.1`, `0x7f.1`, `2130706433`."""
    if not re.fullmatch(r"[0-9a-fx.]+", name):
        return False
    try:
        return socket.inet_aton(name)[0] in (0, 127)
    except OSError:
        return False
