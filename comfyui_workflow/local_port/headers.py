"""Which headers travel on, and which requests a local port takes at all."""

import ipaddress
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from multidict import CIMultiDict

from comfyui_workflow.login import without_login

OF_ONE_CONNECTION = {
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
"""RFC 9110, 7.6.1: they speak of the connection they came on."""
OF_A_HANDSHAKE = {
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "sec-websocket-accept",
}


def travelling(raw: Iterable[tuple[bytes, bytes]], *without: str) -> CIMultiDict[str]:
    """All headers that are meant for the other end, in their order, repeated ones too. Not our own login: a
    browser knows hosts, not ports."""
    pairs = [(name.decode("latin-1"), value.decode("utf-8", "surrogateescape")) for name, value in raw]
    named = {
        each.strip().lower()
        for name, value in pairs
        if name.lower() == "connection"
        for each in value.split(",")
    }
    dropped = OF_ONE_CONNECTION | named | set(without)
    told = (_without_login(name, value) for name, value in pairs if name.lower() not in dropped)
    return CIMultiDict((name, value) for name, value in told if value is not None)


def _without_login(name: str, value: str) -> tuple[str, str | None]:
    return name, (without_login(value) or None) if name.lower() == "cookie" else value


def refusal_of(headers: Mapping[str, str], method: str) -> str | None:
    """A sentence where a page of another site asks, by a name bound to this machine (DNS rebinding) or across
    origins. A page of this machine is ComfyUI's to judge."""
    host, origin = headers.get("Host"), headers.get("Origin")
    if host is not None and not _is_loopback(_host_name(f"//{host}")):
        return "A local port answers only as localhost or 127.0.0.1: this request calls it by another name."
    if origin is not None and origin != "null":
        return None if _is_loopback(_host_name(origin)) else f"Pages of {origin} may not use this port."
    if headers.get("Sec-Fetch-Site") == "cross-site" and not _follows_a_link(headers, method):
        return "Pages of other sites may not use this port."
    return None


def _follows_a_link(headers: Mapping[str, str], method: str) -> bool:
    """To a page of its own: whoever shows the link sees nothing of it."""
    asked = [headers.get(f"Sec-Fetch-{name}") for name in ("Mode", "Dest")]
    return method == "GET" and asked == ["navigate", "document"]


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # half an IPv6 address
        return ""


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
