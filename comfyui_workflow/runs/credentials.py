"""Credentials for the URLs of a request: parsed, matched with URLs, and kept apart from all records.

A request may bring `credentials`, and URLs that are secrets themselves (a password, a signature). Both are
`RequestSecrets`. They travel with the request until its run is saved. Then they are stored outside of all
records, until the run no longer needs them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from pydantic import TypeAdapter, ValidationError

from comfyui_workflow.errors import InvalidRequest, StoreError

MOST_CREDENTIALS = 100
LONGEST_PATTERN = 2048
LONGEST_VALUE = 8192
HIDDEN = "..."
"""Stands for a secret part of a URL that is shown."""
_HARMLESS = frozenset(
    re.findall(
        "[a-z]+",
        "alt dl download ext export filename format fp h height id lang name page "
        "path platform q quality raw ref resolution size type v variant version w width",
    )
)
"""Names of parameters whose values are no secrets. The values of all others are hidden."""
_LONGEST_HARMLESS = 64


@dataclass(frozen=True, kw_only=True)
class Auth:
    """One way to be authenticated. `kind` says which fields count."""

    kind: str
    """`bearer`, `basic`, `header`, `query` or `s3`."""
    name: str = ""
    """User name, name of a header or of a query parameter, or id of an access key."""
    secret: str = field(default="", repr=False)
    """Token, password, value, or secret access key."""
    session_token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    region: str | None = None


@dataclass(frozen=True, kw_only=True)
class Credential:
    url_pattern: str
    """Glob of the whole URL: `*` stops at a slash, `**` is anything, `?` is one character."""
    auth: Auth = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class RequestSecrets:
    """The secrets of one request. Not part of any record."""

    credentials: tuple[Credential, ...] = field(default=(), repr=False)
    urls: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Complete URLs, by the URLs without their secrets; those of inputs by the local paths of the files."""

    def __bool__(self) -> bool:
        return bool(self.credentials or self.urls)

    def auth_for(self, url: str) -> Auth | None:
        """Returns the first credential whose pattern matches the URL."""
        whole = self.complete(url)
        found = (each.auth for each in self.credentials if read_glob(each.url_pattern).matches(whole))
        return next(found, None)

    def complete(self, url: str) -> str:
        """Returns the URL with its secret parts."""
        return self.urls.get(url, url)

    def of_download(self, url: str, path: str) -> "RequestSecrets":
        """Returns the secrets for one input. Its complete URL is stored by its local path: URLs that differ
        only in their secret parts (`?key=1`, `?key=2`) look the same without them."""
        whole = self.urls.get(path)
        return self if whole is None else RequestSecrets(credentials=self.credentials, urls={url: whole})


NO_SECRETS = RequestSecrets()


def with_urls(secrets: RequestSecrets, urls: Mapping[str, str]) -> RequestSecrets:
    return RequestSecrets(credentials=secrets.credentials, urls={**secrets.urls, **urls}) if urls else secrets


def without_secrets(url: str) -> str:
    """Returns the URL as it may be recorded and shown: without user, password and fragment, and without the
    values of parameters that may be secrets (`sig`, `X-Amz-Signature`, `token`)."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("?")[0].rpartition("@")[2]
    query = urlencode(
        [
            (name, value if _is_harmless(name, value) else HIDDEN)
            for name, value in parse_qsl(parts.query, keep_blank_values=True)
        ],
        safe="/:,.",
        quote_via=quote,
    )
    if parts.query and not query:
        query = HIDDEN
    has_hidden = HIDDEN in query
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, query if has_hidden else parts.query, ""))


def _is_harmless(name: str, value: str) -> bool:
    return name.lower() in _HARMLESS and len(value) <= _LONGEST_HARMLESS


def read_credentials(given: object) -> tuple[Credential, ...]:
    """Parses `credentials` of a request: `[{"url_pattern": ..., "auth": {"type": ...}}]`. The messages
    contain no secrets. Raises: InvalidRequest."""
    if given is None:
        return ()
    if not isinstance(given, list) or len(given) > MOST_CREDENTIALS:
        raise InvalidRequest(f"credentials must be a list of at most {MOST_CREDENTIALS} objects")
    return tuple(_credential(each, f"credentials[{number}]") for number, each in enumerate(given))


def read_auth(given: object, where: str = "auth") -> Auth:
    """Parses one `auth` object: `{"type": "bearer", "token": ...}`. Raises: InvalidRequest."""
    if not isinstance(given, dict):
        raise InvalidRequest(f"{where} must be an object with a type: {', '.join(_READERS)}")
    reader = _READERS.get(str(given.get("type")))
    if reader is None:
        raise InvalidRequest(f"{where}.type must be one of {', '.join(_READERS)}")
    return reader(_Fields(given, where))


def _credential(given: object, where: str) -> Credential:
    if not isinstance(given, dict):
        raise InvalidRequest(f"{where} must be an object with url_pattern and auth")
    pattern = given.get("url_pattern")
    if not isinstance(pattern, str) or not pattern.isprintable() or not 0 < len(pattern) <= LONGEST_PATTERN:
        raise InvalidRequest(f"{where}.url_pattern must be a text of at most {LONGEST_PATTERN} characters")
    return Credential(url_pattern=pattern, auth=read_auth(given.get("auth"), f"{where}.auth"))


@dataclass(frozen=True)
class _Fields:
    given: Mapping[str, Any]
    where: str

    def text(self, name: str) -> str:
        value = self.optional(name)
        if not value:
            raise InvalidRequest(f"{self.where}.{name} is required")
        return value

    def optional(self, name: str) -> str | None:
        value = self.given.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or len(value) > LONGEST_VALUE or not value.isprintable():
            raise InvalidRequest(f"{self.where}.{name} must be a text of at most {LONGEST_VALUE} characters")
        return value

    def header_name(self, name: str) -> str:
        value = self.text(name)
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", value) or value.lower() in _REFUSED_HEADERS:
            raise InvalidRequest(f"{self.where}.{name} is not the name of a header that may be set")
        return value

    def header_value(self, name: str) -> str:
        value = self.text(name)
        if not value.isascii():
            raise InvalidRequest(f"{self.where}.{name} must have letters, digits and signs of ASCII only")
        return value


_REFUSED_HEADERS = (
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "range",
    "if-range",
    "expect",
)


def _bearer(fields: _Fields) -> Auth:
    return Auth(kind="bearer", secret=fields.header_value("token"))


def _basic(fields: _Fields) -> Auth:
    return Auth(kind="basic", name=fields.text("username"), secret=fields.optional("password") or "")


def _header(fields: _Fields) -> Auth:
    value = fields.header_value("header_value")
    return Auth(kind="header", name=fields.header_name("header_name"), secret=value)


def _query(fields: _Fields) -> Auth:
    return Auth(kind="query", name=fields.text("query_param"), secret=fields.text("query_value"))


def _s3(fields: _Fields) -> Auth:
    return Auth(
        kind="s3",
        name=fields.text("access_key_id"),
        secret=fields.text("secret_access_key"),
        session_token=fields.optional("session_token"),
        endpoint=fields.optional("endpoint"),
        region=fields.optional("region"),
    )


_READERS = {"bearer": _bearer, "basic": _basic, "header": _header, "query": _query, "s3": _s3}


@dataclass(frozen=True)
class Glob:
    """A glob as an automaton: bit i of a state is set if the first i tokens may have matched. Its time grows
    with the length of the URL only, whatever the pattern is."""

    letters: Mapping[str, int]
    any_letter: int
    within_slashes: int
    anything: int
    length: int

    def matches(self, text: str) -> bool:
        stars = self.within_slashes | self.anything
        state = 1 | (1 & stars) << 1
        for letter in text:
            taken = state & (self.any_letter | self.letters.get(letter, 0))
            stays = state & (self.anything if letter == "/" else stars)
            state = taken << 1 | stays
            state |= (state & stars) << 1
        return bool(state >> self.length)


@lru_cache(maxsize=256)
def read_glob(pattern: str) -> Glob:
    tokens = re.findall(r"\*+|.", pattern, re.DOTALL)
    letters: dict[str, int] = {}
    bits = {"?": 0, "*": 0, "**": 0}
    for number, token in enumerate(tokens):
        if token[0] == "*":
            bits["*" if len(token) == 1 else "**"] |= 1 << number
        elif token == "?":  # noqa: S105 - a part of a glob
            bits["?"] |= 1 << number
        else:
            letters[token] = letters.get(token, 0) | 1 << number
    return Glob(letters, bits["?"], bits["*"], bits["**"], len(tokens))


_secrets = cache(lambda: TypeAdapter(RequestSecrets))


def encode_secrets(secrets: RequestSecrets) -> str:
    return _secrets().dump_json(secrets, exclude_defaults=True).decode()


def decode_secrets(content: str) -> RequestSecrets:
    """Raises: StoreError."""
    try:
        return _secrets().validate_json(content)
    except ValidationError as error:
        raise StoreError("the credentials of the run are damaged") from error
