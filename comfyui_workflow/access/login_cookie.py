"""The login of a browser: a cookie that is made of the API token, and does not tell it."""

import hmac
from hashlib import sha256

COOKIE = "comfyui_workflow_login"
LASTS_S = 30 * 86_400


def cookie_value(token: str, at_s: int) -> str:
    """Good for a month, and no longer than the token."""
    return f"{at_s}.{_seal(token, str(at_s))}"


def is_login(value: str, token: str, at_s: int) -> bool:
    return is_sealed(value, token) and at_s - int(value.partition(".")[0]) <= LASTS_S


def is_sealed(value: str, token: str) -> bool:
    """Made by us with this token, however long ago: so it begins with a number."""
    given_at, _, seal = value.partition(".")
    return hmac.compare_digest(seal.encode(), _seal(token, given_at).encode())


def is_token(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def is_bearer(authorization: str, token: str | None) -> bool:
    """Whether an `Authorization` header has our token. No where there is none."""
    scheme, _, given = authorization.strip().partition(" ")
    if token is None or scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())


def without_login(cookies: str) -> str:
    """A `Cookie` header for another server at the same host: browsers send it what they have from us."""
    pairs = (pair for pair in cookies.split(";") if pair.partition("=")[0].strip() != COOKIE)
    return ";".join(pairs).strip()


def _seal(token: str, text: str) -> str:
    return hmac.new(token.encode(), f"{COOKIE} {text}".encode(), sha256).hexdigest()
