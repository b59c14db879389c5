"""Headers that are forwarded to the instance, and the check of Host and Origin for requests to a local
port."""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from multidict import CIMultiDict

from comfyui_workflow.access.login_cookie import is_bearer, without_login
from comfyui_workflow.access.origins import (
    Origin,
    is_at_local_port,
    is_name_of_this_machine,
    origin_of_url,
    origins_of_host,
    parse_origin,
)
from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.proxy.model import PortPolicy

HOP_BY_HOP_HEADERS = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110, section 7.6.1: headers that belong to one connection only."""
HANDSHAKE_HEADERS = {
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "sec-websocket-accept",
}


def server_token_headers(headers: Mapping[str, str], token: str | None) -> tuple[str, ...]:
    """Names of the headers that must not reach the instance, because they contain the token of this
    server."""
    return ("authorization",) if is_bearer(headers.get("Authorization", ""), token) else ()


def end_to_end_headers(
    raw: Iterable[tuple[bytes, bytes]], *without: str
) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yields the name in lower case, the name and the value of all end-to-end headers, in their order,
    repeated ones included. The login cookie of this server is removed: browsers send cookies to every port of
    a host. So is `Sec-Fetch-Site: cross-site`: a newer ComfyUI refuses such requests, and here it is decided
    which of them are allowed (`refusal_of`)."""
    lowered = [(name.lower(), name, value) for name, value in raw]
    dropped = HOP_BY_HOP_HEADERS.union(each.encode() for each in without)
    for lower, _, value in lowered:
        if lower == b"connection":
            dropped = dropped.union(each.strip() for each in value.lower().split(b","))
    for lower, name, value in lowered:
        if lower in dropped or (lower == b"sec-fetch-site" and value == b"cross-site"):
            continue
        if lower != b"cookie":
            yield lower, name, value
        elif cookies := _without_login(value):
            yield lower, name, cookies


def _without_login(value: bytes) -> bytes:
    return without_login(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def forwarded_headers(raw: Iterable[tuple[bytes, bytes]], *without: str) -> CIMultiDict[str]:
    """Returns the end-to-end headers as text."""
    headers: CIMultiDict[str] = CIMultiDict()
    for _, name, value in end_to_end_headers(raw, *without):
        headers.add(name.decode("latin-1"), value.decode("utf-8", "surrogateescape"))
    return headers


def refusal_of(headers: Mapping[str, str], method: str, policy: PortPolicy) -> str | None:
    """Returns the reason to refuse the request, or None.

    Refused are: requests with a host name that is neither loopback nor in `policy.hosts` (DNS rebinding);
    requests from pages of other sites, of another port of this machine, and from pages without an origin.
    Allowed are: the port's own pages, pages of `policy.origins`, and programs.
    """
    host, origin = headers.get("Host"), headers.get("Origin")
    if host is not None and not _is_this_machine(host, policy.hosts):
        return (
            "A local port answers only at localhost, 127.0.0.1 and the names in "
            "COMFYUI_WORKFLOW_ALLOWED_HOSTS: this request uses another host name."
        )
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
    return page in policy.origins and not is_at_local_port(page, policy.used_ports.all(), policy.hosts)


def _refused_page(origin: str) -> str:
    return (
        f"Pages of {shown(origin)} may not use this port: it answers only its own pages and programs "
        "(allow others with COMFYUI_WORKFLOW_LOCAL_PORT_ORIGINS)."
    )


def _follows_a_link(headers: Mapping[str, str], method: str) -> bool:
    """True for navigation to a page of this port: the page with the link cannot read the response."""
    fetched_as = [headers.get(f"Sec-Fetch-{name}") for name in ("Mode", "Dest")]
    return method == "GET" and fetched_as == ["navigate", "document"]


@lru_cache(maxsize=16)
def _is_this_machine(host: str, other_names: tuple[str, ...]) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:  # an incomplete IPv6 address
        return False
    return is_name_of_this_machine(name, other_names)
