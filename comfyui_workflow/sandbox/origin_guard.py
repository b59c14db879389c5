"""ComfyUI's origin check: a server on a loopback address refuses requests of pages from other origins."""

import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from comfyui_workflow.sandbox.faults import FaultBoard

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def guard_origin(faults: FaultBoard) -> Middleware:
    """Returns the middleware. Newer versions also refuse what a browser marks as cross-site."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_cross_site = request.headers.get("Sec-Fetch-Site") == "cross-site"
        is_foreign = _is_foreign(request.headers.get("Host", ""), request.headers.get("Origin", ""))
        if is_foreign or (is_cross_site and faults.version.refuses_cross_site):
            return web.Response(status=403)
        if request.method == "OPTIONS":
            return web.Response()
        return await handler(request)

    return middleware


def _is_foreign(host: str, origin: str) -> bool:
    """True if the origin differs from the host. Ports are compared only if both have one. A host that is not
    a loopback address is not checked."""
    ours, theirs = urlsplit(f"//{host.lower()}"), urlsplit(origin.lower())
    if not theirs.netloc or not _is_loopback(ours.hostname or ""):
        return False
    if ours.port is None or theirs.port is None:
        return ours.hostname != theirs.hostname
    return ours.netloc != theirs.netloc


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
