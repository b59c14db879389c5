"""Login cookie of a browser: a timestamp with an HMAC under the API token. It does not reveal the token."""

import hmac
from hashlib import sha256

COOKIE = "comfyui_workflow_login"
LASTS_S = 30 * 86_400


def cookie_value(token: str, at_s: int) -> str:
    """Returns a cookie that is valid for a month, or until the token changes."""
    return f"{at_s}.{_seal(token, str(at_s))}"


def is_login(value: str, token: str, at_s: int) -> bool:
    """True if the cookie was created with this token and has not expired."""
    return is_authentic(value, token) and at_s - int(value.partition(".")[0]) <= LASTS_S


def is_authentic(value: str, token: str) -> bool:
    """True if this server created the cookie with this token, at any time: then it begins with a number."""
    given_at, _, seal = value.partition(".")
    return hmac.compare_digest(seal.encode(), _seal(token, given_at).encode())


def is_token(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def is_bearer(authorization: str, token: str | None) -> bool:
    """True if an `Authorization` header contains the token. False if the server has no token."""
    scheme, _, given = authorization.strip().partition(" ")
    if token is None or scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())


def without_login(cookies: str) -> str:
    """Removes the login from a `Cookie` header that is forwarded to another server.

    Browsers send the cookies of one port to all ports of the host."""
    pairs = (pair for pair in cookies.split(";") if pair.partition("=")[0].strip() != COOKIE)
    return ";".join(pairs).strip()


def _seal(token: str, text: str) -> str:
    return hmac.new(token.encode(), f"{COOKIE} {text}".encode(), sha256).hexdigest()
