"""Who may come in: the token, or a browser that has logged in with it; and no page of another site."""

import re
import time
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from flask import Flask, request
from flask_cors import CORS
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, RequestEntityTooLarge, Unauthorized
from werkzeug.http import parse_cookie

from comfyui_workflow.api.token_guesses import guesses_in, has_login, has_token, note_wrong
from comfyui_workflow.early_refusals import FindLimit
from comfyui_workflow.login import COOKIE
from comfyui_workflow.settings import Settings

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def guard(
    app: Flask, settings: Settings, open_paths: frozenset[str], places: Iterable[str], limit_of: FindLimit
) -> None:
    """Checks every request before its route: `Host` against names that are bound to us by somebody else
    (DNS rebinding), `Origin` and `Sec-Fetch-Site` against other sites, then the token. What is open has no
    secrets, or asks for itself. Then the size of its body. The API that is asked words the refusal; `places`
    are where the APIs are, which pages of the allowed origins may use."""
    allowed = {"origins": [_origin_pattern(settings.cors_hosts)]}
    CORS(app, resources={rf"{re.escape(place)}(/|$)": allowed for place in places})

    @app.before_request
    def check() -> None:
        if not _is_host_known(settings):
            raise Forbidden("This server is not known under that host name (COMFYUI_WORKFLOW_ALLOWED_HOSTS)")
        if not _is_origin_allowed(settings):
            raise Forbidden("Pages of that origin may not use this server (COMFYUI_WORKFLOW_CORS_HOSTS)")
        is_open = request.path in open_paths or request.endpoint == "static"
        if request.method == "OPTIONS" or is_open or is_let_in(settings):
            return
        refuse_guesses(settings)
        raise Unauthorized(
            "An API token is needed: Authorization: Bearer <token>",
            www_authenticate=WWWAuthenticate("bearer"),
        )

    @app.before_request
    def check_size() -> None:
        limit = limit_of(request.path)
        if (request.content_length or 0) > limit.most_bytes:
            raise RequestEntityTooLarge(limit.message)


def is_let_in(settings: Settings) -> bool:
    """Whether the request brings the token, or a login where a page of ours asks. A browser sends that along
    whoever asks, and takes everything on the same host for the same site: so not for pages of other ports."""
    if settings.api_token is None:
        return True
    token = settings.api_token.get_secret_value()
    if has_token(request.headers.get("Authorization", ""), token):
        return True
    return is_own_page() and has_login(request.cookies.getlist(COOKIE), token, int(time.time()))


def may_be_let_in(settings: Settings, headers: Mapping[str, str]) -> bool:
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
    return (origin is None or _is_own(origin)) and (asks in ("same-origin", "none") or _follows_a_link())


def _origin_pattern(hosts: tuple[str, ...]) -> str:
    return rf"^https?://({'|'.join(map(re.escape, hosts))})(:\d+)?$"


def _is_host_known(settings: Settings) -> bool:
    """Only a server on loopback is safe by the name it is called; elsewhere the token keeps it."""
    if not settings.is_loopback:
        return True
    name = _host_name(f"//{request.host}")
    return name in (*LOOPBACK_NAMES, settings.host, *settings.allowed_hosts)


def _is_origin_allowed(settings: Settings) -> bool:
    origin = request.headers.get("Origin")
    if origin is None:
        return request.headers.get("Sec-Fetch-Site", "none") != "cross-site" or _follows_a_link()
    return _is_own(origin) or re.fullmatch(_origin_pattern(settings.cors_hosts), origin) is not None


def _is_own(origin: str) -> bool:
    return origin in (f"http://{request.host}", f"https://{request.host}")


def _follows_a_link() -> bool:
    """To a page of its own: whoever shows the link sees nothing of it. A frame or a picture is not one."""
    asked = [request.headers.get(f"Sec-Fetch-{name}") for name in ("Mode", "Dest")]
    return request.method == "GET" and asked == ["navigate", "document"]


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # half an IPv6 address
        return ""
