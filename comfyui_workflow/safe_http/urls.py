"""URLs that somebody gave us: read one way, by one parser, and shown without their secrets."""

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
    """Where a URL leads."""

    is_encrypted: bool
    host: str
    """An IPv6 address has no brackets here."""
    port: int
    path: str
    """With the query, as it goes over the wire."""
    authorization: str | None
    origin: str
    """Scheme, host and port: all of a URL that may be said aloud."""


def read_url(url: str) -> Target:
    """Raises: UrlRefused."""
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
    """Raises: UrlRefused."""
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise UrlRefused(f"{origin_of(url)} redirects to something that is no URL") from error


def origin_of(url: str) -> str:
    """For logs: without the path, too, which of some webhooks is the secret."""
    try:
        return read_url(url).origin
    except UrlRefused:
        return "a URL that is none"


def shown_url(url: str) -> str:
    """For whoever may see which webhooks there are: without a password and what is in the query."""
    try:
        target = read_url(url)
    except UrlRefused:
        return "a URL that is none"
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
