"""Connection pools for one server, direct or through the proxy of the environment."""

import ssl
from urllib.parse import unquote

import urllib3
from urllib3.exceptions import ProxySchemeUnknown
from urllib3.util import make_headers, parse_url

from comfyui_workflow.comfyui.timed_connections import TIMED_POOLS
from comfyui_workflow.errors import InvalidRequest


def open_pools(url: str, *, uses_proxy_settings: bool) -> urllib3.PoolManager:
    """Returns the pools for requests to that URL. Opens no connection yet. Raises: InvalidRequest for a proxy
    that is not an HTTP proxy."""
    tls = _tls() if url.startswith("https:") else None
    proxy = _proxy_for(url) if uses_proxy_settings else None
    pools = urllib3.PoolManager(ssl_context=tls) if proxy is None else _proxy_pools(proxy, tls)
    pools.pool_classes_by_scheme = TIMED_POOLS
    return pools


def _proxy_pools(proxy: str, tls: ssl.SSLContext | None) -> urllib3.ProxyManager:
    """Raises: InvalidRequest."""
    credentials = parse_url(proxy).auth
    headers = make_headers(proxy_basic_auth=unquote(credentials)) if credentials else None
    try:
        return urllib3.ProxyManager(proxy, ssl_context=tls, proxy_headers=headers)
    except ProxySchemeUnknown as error:
        raise InvalidRequest(
            f"The environment names a proxy that is not an HTTP proxy: {proxy}. NO_PROXY lists the servers "
            "without a proxy"
        ) from error


def _proxy_for(url: str) -> str | None:
    """Returns the proxy that `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` select; None for
    none."""
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - most servers are on this machine

    parts = parse_url(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme or "", proxies.get("all"))
    if proxy is None or proxy_bypass(parts.netloc or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _tls() -> ssl.SSLContext:
    """Returns a TLS context with the authorities of this system and those of Mozilla, which some systems
    lack."""
    import certifi  # noqa: PLC0415 - most servers are on this machine

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
