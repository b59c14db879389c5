"""Who may come in: the token, or a browser that has logged in with it; and no page of another site."""

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
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
from comfyui_workflow.api.guess_limit import guesses_in, has_login, has_token, note_wrong
from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.server.body_limits import FindLimit
from comfyui_workflow.server.peer_channels import PEER_REFUSAL
from comfyui_workflow.settings import Settings

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
PortNumbers = Callable[[], Collection[int]]
"""Ports of this machine whose pages are an instance's."""


def guard(
    app: Flask,
    settings: Settings,
    open_paths: frozenset[str],
    places: Iterable[str],
    limit_of: FindLimit,
    *,
    local_ports: PortNumbers = frozenset,
) -> None:
    """Checks every request before its route: whose connection it came on, `Host` against names that are bound
    to us by somebody else (DNS rebinding), `Origin`, `Sec-Fetch-Site` and `Referer` against pages of other
    origins, then the token. What is open has no secrets, or asks for itself. Then the size of its body. The
    API that is asked words the refusal; `places` are where the APIs are, which pages of the allowed origins
    may use. Pages of `local_ports` are the instance's and may use nothing, whatever the settings allow."""
    app.after_request(_without_cors_if_refused)
    allowed = {"origins": [re.compile(rf"^{re.escape(str(each))}$") for each in settings.cors_origins]}
    CORS(app, resources={rf"{re.escape(place)}(/|$)": allowed for place in places})

    @app.before_request
    def check() -> None:
        _check_caller(settings, open_paths, local_ports())

    @app.before_request
    def check_size() -> None:
        limit = limit_of(request.path)
        if (request.content_length or 0) > limit.most_bytes:
            raise RequestEntityTooLarge(limit.message)


def _check_caller(settings: Settings, open_paths: frozenset[str], local_ports: Collection[int]) -> None:
    """Raises: Forbidden, Unauthorized, TooManyRequests."""
    if sentence := request.environ.get(PEER_REFUSAL):
        raise Forbidden(sentence)
    if not _is_host_known(settings):
        raise Forbidden("This server is not known under that host name (COMFYUI_WORKFLOW_ALLOWED_HOSTS)")
    if sentence := _refusal_of_page(settings.cors_origins, local_ports, open_paths):
        g.is_page_refused = True
        raise Forbidden(sentence)
    is_open = request.path in open_paths or request.endpoint == "static"
    if request.method == "OPTIONS" or is_open or is_authorized(settings):
        return
    refuse_guesses(settings)
    raise Unauthorized(
        "An API token is needed: Authorization: Bearer <token>",
        www_authenticate=WWWAuthenticate("bearer"),
    )


def is_authorized(settings: Settings) -> bool:
    """Whether the request brings the token, or a login where a page of ours asks. A browser sends that along
    whoever asks, and takes everything on the same host for the same site: so not for pages of other ports."""
    if settings.api_token is None:
        return True
    token = settings.api_token.get_secret_value()
    if has_token(request.headers.get("Authorization", ""), token):
        return True
    return is_own_page() and has_login(request.cookies.getlist(COOKIE), token, int(time.time()))


def may_be_authorized(settings: Settings, headers: Mapping[str, str]) -> bool:
    """The same of the head of a request whose body has not been read; of whichever page. Names of `headers`
    are in capitals, with `_`."""
    if settings.api_token is None:
        return True
    token = settings.api_token.get_secret_value()
    if has_token(headers.get("AUTHORIZATION", ""), token):
        return True
    return has_login(parse_cookie(headers.get("COOKIE", "")).getlist(COOKIE), token, int(time.time()))


def refuse_guesses(settings: Settings) -> None:
    """For a request that was not let in. Raises: TooManyRequests."""
    if settings.api_token is not None:
        token = settings.api_token.get_secret_value()
        cookies = request.cookies.getlist(COOKIE) if is_own_page() else []
        note_wrong(guesses_in(request.headers.get("Authorization", ""), cookies, token))


def is_own_page() -> bool:
    """Whether a page of ours asks, or nobody's: a person, a command."""
    origin = request.headers.get("Origin")
    asks = request.headers.get("Sec-Fetch-Site", "none")
    return (origin is None or _is_own(parse_origin(origin))) and (
        asks in ("same-origin", "none") or _follows_a_link()
    )


def _is_host_known(settings: Settings) -> bool:
    """Only a server on loopback is safe by the name it is called; elsewhere the token keeps it."""
    if not settings.is_loopback:
        return True
    name = _host_name(f"//{request.host}")
    return name in (*LOOPBACK_NAMES, settings.host, *settings.allowed_hosts)


def _refusal_of_page(
    allowed: Collection[Origin], local_ports: Collection[int], open_paths: frozenset[str]
) -> str | None:
    """A sentence for a page that may not use the server; None for programs, and for those that may. A browser
    tells the page in `Origin`; where it leaves that out, in `Referer`, and whether it is ours in
    `Sec-Fetch-Site`. A page that hides its `Referer` is refused, too."""
    origin = request.headers.get("Origin")
    if origin is not None:
        return _refusal_of_origin(parse_origin(origin), origin, allowed, local_ports)
    asks, referer = request.headers.get("Sec-Fetch-Site"), request.headers.get("Referer")
    if asks in ("same-origin", "none") or _follows_a_link() or (asks is None and not referer):
        return None
    if asks is None and request.method == "GET" and request.path in open_paths:
        return None  # an old browser that follows a link: the page has no secrets in it
    return _refusal_of_origin(origin_of_url(referer or ""), referer or "other sites", allowed, local_ports)


def _refusal_of_origin(
    page: Origin | None, told: str, allowed: Collection[Origin], local_ports: Collection[int]
) -> str | None:
    if page is not None and is_at_local_port(page, local_ports):
        return (
            f"Pages of {page} may never use this server: that port leads, or has led, to an instance, "
            "whose pages they are (local_ports.json in the data directory lists such ports)"
        )
    if page is not None and (_is_own(page) or page in allowed):
        return None
    return (
        f"Pages of {shown(told)} may not use this server (COMFYUI_WORKFLOW_CORS_HOSTS names those that may)"
    )


def _is_own(origin: Origin | None) -> bool:
    return origin in origins_of_host(request.host)


def _without_cors_if_refused(response: Response) -> Response:
    """A page that is refused cannot even read the refusal."""
    if g.get("is_page_refused"):
        for name in [each for each, _ in response.headers if each.lower().startswith("access-control-")]:
            del response.headers[name]
    return response


def _follows_a_link() -> bool:
    """To a page of its own: whoever shows the link sees nothing of it. A frame or a picture is not one."""
    asked = [request.headers.get(f"Sec-Fetch-{name}") for name in ("Mode", "Dest")]
    return request.method == "GET" and asked == ["navigate", "document"]


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # half an IPv6 address
        return ""
