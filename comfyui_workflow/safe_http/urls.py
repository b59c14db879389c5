"""URLs that users give: parsed by one parser everywhere, and shown without their secrets."""

import re
from base64 import b64encode
from dataclasses import dataclass
from urllib.parse import unquote, urljoin

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from comfyui_workflow.errors import UrlRefused

LONGEST_URL = 8192
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True)
class Target:
    """A parsed URL."""

    is_encrypted: bool
    host: str
    """An IPv6 address has no brackets here."""
    port: int
    path: str
    """Path and query, as the request line has them."""
    authorization: str | None
    origin: str
    """Scheme, host and port: the only part of a URL that may be logged."""


def read_url(url: str) -> Target:
    """Parses a URL. Raises: UrlRefused."""
    parsed = _parse(url)
    port = _PORTS[parsed.scheme or ""] if parsed.port is None else parsed.port
    if not parsed.host or "%" in parsed.host or port == 0:
        raise UrlRefused("The URL names no host that can be reached")
    return Target(
        is_encrypted=parsed.scheme == "https",
        host=parsed.host.strip("[]"),
        port=port,
        path=parsed.request_uri,
        authorization=None if parsed.auth is None else _basic(parsed.auth),
        origin=f"{parsed.scheme}://{parsed.netloc}",
    )


def redirected(url: str, location: str) -> str:
    """Resolves the Location of a redirect against the URL. Raises: UrlRefused."""
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise UrlRefused(f"{origin_of(url)} redirects to an invalid URL") from error


def origin_of(url: str) -> str:
    """Returns the origin, for logs. The path is left out too: in some webhook URLs it is the secret."""
    try:
        return read_url(url).origin
    except UrlRefused:
        return "an invalid URL"


def shown_url(url: str) -> str:
    """Returns the URL without password and query, for users who may list the webhooks."""
    try:
        target = read_url(url)
    except UrlRefused:
        return "an invalid URL"
    path, mark, _ = target.path.partition("?")
    return f"{target.origin}{path}{'?…' if mark else ''}"


def _parse(url: str) -> Url:
    if len(url) > LONGEST_URL or re.search(r"[\x00-\x20\x7f]", url):
        raise UrlRefused(f"A URL has at most {LONGEST_URL} characters, and no spaces")
    try:
        parsed = parse_url(url)
    except LocationParseError as error:  # its text has the URL in it
        raise UrlRefused("The URL cannot be read: it should look like https://host/path") from error
    if parsed.scheme not in _PORTS:
        raise UrlRefused("The URL must begin with http:// or https://")
    return parsed


def _basic(userinfo: str) -> str:
    return f"Basic {b64encode(unquote(userinfo).encode()).decode()}"
