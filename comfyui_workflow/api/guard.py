"""Who may come in: the token, and no page of another site."""

import hmac
import re
from urllib.parse import urlsplit

from flask import Flask, Response, jsonify, request
from flask_cors import CORS

from comfyui_workflow.settings import Settings

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def guard(app: Flask, settings: Settings, open_paths: frozenset[str]) -> None:
    """Checks every request before its route: `Host` against names that are bound to us by somebody else
    (DNS rebinding), `Origin` and `Sec-Fetch-Site` against other sites, then the token."""
    CORS(app, resources={r"/comfyui/*": {"origins": [_origin_pattern(settings.cors_hosts)]}})

    @app.before_request
    def check() -> Response | None:
        if not _is_host_known(settings):
            return _refusal(
                403, "This server is not known under that host name (COMFYUI_WORKFLOW_ALLOWED_HOSTS)"
            )
        if not _is_origin_allowed(settings):
            return _refusal(403, "Pages of that origin may not use this server (COMFYUI_WORKFLOW_CORS_HOSTS)")
        if request.method == "OPTIONS" or request.path in open_paths or _has_token(settings):
            return None
        response = _refusal(401, "An API token is needed: Authorization: Bearer <token>")
        response.headers["WWW-Authenticate"] = "Bearer"
        return response


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
    is_own = origin in (f"http://{request.host}", f"https://{request.host}")
    return is_own or re.fullmatch(_origin_pattern(settings.cors_hosts), origin) is not None


def _follows_a_link() -> bool:
    """To a page of its own: whoever shows the link sees nothing of it. A frame or a picture is not one."""
    asked = [request.headers.get(f"Sec-Fetch-{name}") for name in ("Mode", "Dest")]
    return request.method == "GET" and asked == ["navigate", "document"]


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # half an IPv6 address
        return ""


def _has_token(settings: Settings) -> bool:
    if settings.api_token is None:
        return True
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    expected = settings.api_token.get_secret_value()
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), expected.encode())


def _refusal(status: int, message: str) -> Response:
    response = jsonify(success=False, message=message, code="refused")
    response.status_code = status
    return response
