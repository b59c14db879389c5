"""Authorization of requests: the API token or a login cookie. Requests from pages of other sites are refused.

How it works: the checks run before the route of every request, in this order:

1. The connection: a client that the server refused when it accepted the connection (`PEER_REFUSAL`).
2. `Host`: on loopback only known names are accepted, which prevents DNS rebinding.
3. `Origin`, else `Sec-Fetch-Site` and `Referer`: the page that sent the request must belong to this server or
   to an allowed origin.
4. The API token or the login cookie. Open paths skip this check.
5. The size of the body.
"""

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from urllib.parse import urlsplit

from flask import Flask, Response, g, request
from flask_cors import CORS
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, RequestEntityTooLarge, Unauthorized
from werkzeug.http import parse_cookie

from comfyui_workflow.access.login_cookie import COOKIE
from comfyui_workflow.access.origins import (
    Origin,
    is_at_local_port,
    origin_of_url,
    origins_of_host,
    parse_origin,
)
from comfyui_workflow.api.guess_limit import guesses_in, has_login, has_token, record_guesses
from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.server.body_limits import FindLimit
from comfyui_workflow.server.peer_channels import PEER_REFUSAL
from comfyui_workflow.settings import Settings

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
PortNumbers = Callable[[], Collection[int]]
"""Returns the local ports whose pages belong to an instance."""


def guard(
    app: Flask,
    settings: Settings,
    open_paths: frozenset[str],
    api_paths: Iterable[str],
    find_limit: FindLimit,
    *,
    local_ports: PortNumbers = frozenset,
) -> None:
    """Registers the checks, which run before the route of every request.

    `open_paths` need no token: they have no secrets, or check the token themselves. `api_paths` are the
    prefixes of the APIs, the only paths that get CORS headers for the allowed origins. Pages at `local_ports`
    belong to instances and are always refused, whatever the settings allow. The API that owns the path
    formats the error.
    """
    app.after_request(_without_cors_if_refused)
    allowed = {"origins": [re.compile(rf"^{re.escape(str(each))}$") for each in settings.cors_origins]}
    CORS(app, resources={rf"{re.escape(path)}(/|$)": allowed for path in api_paths})

    @app.before_request
    def check() -> None:
        _check_caller(settings, open_paths, local_ports())

    @app.before_request
    def check_size() -> None:
        limit = find_limit(request.path)
        if (request.content_length or 0) > limit.most_bytes:
            raise RequestEntityTooLarge(limit.message)


def _check_caller(settings: Settings, open_paths: frozenset[str], local_ports: Collection[int]) -> None:
    """Raises: Forbidden, Unauthorized, TooManyRequests."""
    if sentence := request.environ.get(PEER_REFUSAL):
        raise Forbidden(sentence)
    if not _is_host_known(settings):
        raise Forbidden("This server is not known under that host name (COMFYUI_WORKFLOW_ALLOWED_HOSTS)")
    is_local = partial(is_at_local_port, ports=local_ports, hosts=settings.allowed_hosts)
    if sentence := _refusal_of_page(settings.cors_origins, is_local, open_paths):
        g.is_page_refused = True
        raise Forbidden(sentence)
    is_open = request.path in open_paths or request.endpoint == "static"
    if request.method == "OPTIONS" or is_open or is_authorized(settings):
        return
    record_failed_authorization(settings)
    raise Unauthorized(
        "An API token is needed: Authorization: Bearer <token>",
        www_authenticate=WWWAuthenticate("bearer"),
    )


def is_authorized(settings: Settings) -> bool:
    """True if the request has the API token, or a login cookie and comes from a page of this server. The page
    is checked because a browser sends the cookie with every request to this host, also from pages at other
    ports: for `SameSite` they are the same site."""
    if settings.api_token is None:
        return True
    token = settings.api_token.get_secret_value()
    if has_token(request.headers.get("Authorization", ""), token):
        return True
    return is_own_page() and has_login(request.cookies.getlist(COOKIE), token, int(time.time()))


def may_be_authorized(settings: Settings, headers: Mapping[str, str]) -> bool:
    """Like `is_authorized`, for a request whose body has not been read; does not check the page. The names in
    `headers` are upper case with `_`."""
    if settings.api_token is None:
        return True
    token = settings.api_token.get_secret_value()
    if has_token(headers.get("AUTHORIZATION", ""), token):
        return True
    return has_login(parse_cookie(headers.get("COOKIE", "")).getlist(COOKIE), token, int(time.time()))


def record_failed_authorization(settings: Settings) -> None:
    """Records the wrong tokens of a request that failed authorization. Raises: TooManyRequests."""
    if settings.api_token is not None:
        token = settings.api_token.get_secret_value()
        cookies = request.cookies.getlist(COOKIE) if is_own_page() else []
        record_guesses(guesses_in(request.headers.get("Authorization", ""), cookies, token))


def is_own_page() -> bool:
    """True if a page of this server sent the request, or no page at all (typed URL, bookmark, command-line
    client)."""
    origin = request.headers.get("Origin")
    fetch_site = request.headers.get("Sec-Fetch-Site", "none")
    return (origin is None or _is_own_origin(parse_origin(origin))) and (
        fetch_site in ("same-origin", "none") or _is_top_level_navigation()
    )


def _is_host_known(settings: Settings) -> bool:
    """Checks the host name for a server on loopback only: every other server is protected by its token."""
    if not settings.is_loopback:
        return True
    name = _host_name(f"//{request.host}")
    return name in (*LOOPBACK_NAMES, settings.host, *settings.allowed_hosts)


def _refusal_of_page(
    allowed: Collection[Origin], is_local: Callable[[Origin], bool], open_paths: frozenset[str]
) -> str | None:
    """Returns the error message for a page that may not use the server; None for programs and for allowed
    pages. A browser names the page in `Origin`; without `Origin`, in `Referer`, and `Sec-Fetch-Site` says
    whether the page has the same origin. A page that hides its `Referer` is refused."""
    origin = request.headers.get("Origin")
    if origin is not None:
        return _refusal_of_origin(parse_origin(origin), origin, allowed, is_local)
    fetch_site, referer = request.headers.get("Sec-Fetch-Site"), request.headers.get("Referer")
    if (
        fetch_site in ("same-origin", "none")
        or _is_top_level_navigation()
        or (fetch_site is None and not referer)
    ):
        return None
    if fetch_site is None and request.method == "GET" and request.path in open_paths:
        return None  # a browser without Sec-Fetch-* that follows a link: the answer has no secrets
    return _refusal_of_origin(origin_of_url(referer or ""), referer or "other sites", allowed, is_local)


def _refusal_of_origin(
    page: Origin | None, page_name: str, allowed: Collection[Origin], is_local: Callable[[Origin], bool]
) -> str | None:
    if page is not None and is_local(page):
        return (
            f"Pages of {page} may never use this server: that port leads, or has led, to an instance "
            "(local_ports.json in the data directory lists such ports)"
        )
    if page is not None and (_is_own_origin(page) or page in allowed):
        return None
    return (
        f"Pages of {shown(page_name)} may not use this server "
        "(COMFYUI_WORKFLOW_CORS_HOSTS names those that may)"
    )


def _is_own_origin(origin: Origin | None) -> bool:
    return origin in origins_of_host(request.host)


def _without_cors_if_refused(response: Response) -> Response:
    """Removes the CORS headers, so that a refused page cannot read the error."""
    if g.get("is_page_refused"):
        for name in [each for each, _ in response.headers if each.lower().startswith("access-control-")]:
            del response.headers[name]
    return response


def _is_top_level_navigation() -> bool:
    """True for a top-level navigation: the linking page cannot read the answer. False for frames and
    images."""
    fetch_metadata = [request.headers.get(f"Sec-Fetch-{name}") for name in ("Mode", "Dest")]
    return request.method == "GET" and fetch_metadata == ["navigate", "document"]


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # an incomplete IPv6 address
        return ""
