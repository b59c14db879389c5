"""Connections to one server, straight or through the proxy that the environment names."""

import ssl
from urllib.parse import unquote

import urllib3
from urllib3.exceptions import ProxySchemeUnknown
from urllib3.util import make_headers, parse_url

from comfyui_workflow.comfyui.timed_connections import TIMED_POOLS
from comfyui_workflow.errors import InvalidRequest


def open_pools(url: str, *, heeds_proxies: bool) -> urllib3.PoolManager:
    """For the requests to that URL and below. Opens no connection yet. Raises: InvalidRequest for a proxy of
    another kind than HTTP."""
    tls = _tls() if url.startswith("https:") else None
    proxy = _proxy_for(url) if heeds_proxies else None
    pools = urllib3.PoolManager(ssl_context=tls) if proxy is None else _behind(proxy, tls)
    pools.pool_classes_by_scheme = TIMED_POOLS
    return pools


def _behind(proxy: str, tls: ssl.SSLContext | None) -> urllib3.ProxyManager:
    """Raises: InvalidRequest."""
    credentials = parse_url(proxy).auth
    headers = make_headers(proxy_basic_auth=unquote(credentials)) if credentials else None
    try:
        return urllib3.ProxyManager(proxy, ssl_context=tls, proxy_headers=headers)
    except ProxySchemeUnknown as error:
        raise InvalidRequest(
            f"The environment names a proxy that is not of HTTP: {proxy}. NO_PROXY names servers without one"
        ) from error


def _proxy_for(url: str) -> str | None:
    """As `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say it."""
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - most servers are on this machine

    parts = parse_url(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme or "", proxies.get("all"))
    if proxy is None or proxy_bypass(parts.netloc or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _tls() -> ssl.SSLContext:
    """The authorities that this system trusts, and those of Mozilla, which some systems lack."""
    import certifi  # noqa: PLC0415 - most servers are on this machine

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
