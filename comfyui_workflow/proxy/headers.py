"""Which headers travel on, and which requests a local port takes at all."""

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from multidict import CIMultiDict

from comfyui_workflow.access.login_cookie import is_bearer, without_login
from comfyui_workflow.access.origins import (
    Origin,
    is_at_local_port,
    is_loopback_name,
    origin_of_url,
    origins_of_host,
    parse_origin,
)
from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.proxy.model import PortPolicy

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


def told_to_us(headers: Mapping[str, str], token: str | None) -> tuple[str, ...]:
    """Names of headers that are not for the instance: the token of this server."""
    return ("authorization",) if is_bearer(headers.get("Authorization", ""), token) else ()


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


def refusal_of(headers: Mapping[str, str], method: str, policy: PortPolicy) -> str | None:
    """A sentence where a page of another site asks, by a name bound to this machine (DNS rebinding) or across
    origins; also a page of another port of this machine, and one without an origin. None for the port's own
    pages, for those of `policy.origins`, and for programs."""
    host, origin = headers.get("Host"), headers.get("Origin")
    if host is not None and not is_loopback_name(_host_name(f"//{host}")):
        return "A local port answers only as localhost or 127.0.0.1: this request calls it by another name."
    if origin is not None:
        return None if _may_use(parse_origin(origin), host or "", policy) else _refused_page(origin)
    if headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin") or _follows_a_link(headers, method):
        return None
    page = origin_of_url(headers.get("Referer", ""))
    return None if _may_use(page, host or "", policy) else _refused_page("other sites")


def _may_use(page: Origin | None, host: str, policy: PortPolicy) -> bool:
    if page is None:
        return False
    if page in origins_of_host(host):
        return True
    return page in policy.origins and not is_at_local_port(page, policy.used_ports.all())


def _refused_page(origin: str) -> str:
    return (
        f"Pages of {shown(origin)} may not use this port: it answers its own pages, and programs "
        "(COMFYUI_WORKFLOW_LOCAL_PORT_ORIGINS names others)."
    )


def _follows_a_link(headers: Mapping[str, str], method: str) -> bool:
    """To a page of its own: whoever shows the link sees nothing of it."""
    asked = [headers.get(f"Sec-Fetch-{name}") for name in ("Mode", "Dest")]
    return method == "GET" and asked == ["navigate", "document"]


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # half an IPv6 address
        return ""
