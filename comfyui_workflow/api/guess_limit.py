"""Checks the API token of a request, and limits the rate of guesses per address.

How it works: a correct token or login is accepted at once, whatever the same address has sent before. Every
wrong token counts as a guess of its address. After `FREE_GUESSES` the address gets 429 instead of 401, and
the event loop of the HTTP server delays the response by seconds; this occupies no thread. The same wrong
token again is not counted: an attacker learns nothing from it, and a page whose login has expired sends it in
every request.
"""

import hashlib
import ipaddress
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flask import current_app, request
from werkzeug.exceptions import TooManyRequests

from comfyui_workflow.access.login_cookie import is_authentic, is_login, is_token
from comfyui_workflow.server.body_limits import DELAY_RESPONSE

FREE_GUESSES = 10
FORGET_INTERVAL_S = 6.0
"""One guess is forgotten per interval: ten guesses a minute get no delay."""
DELAY_PER_GUESS_S = 1.0
"""Delay of the response for each guess above `FREE_GUESSES`."""
MOST_COUNTED = FREE_GUESSES + 10
MOST_ADDRESSES = 10_000
REMEMBERED = 32
"""Wrong tokens that are remembered per address, as hashes, so that a repetition is not counted."""
IPV6_NETWORK = 64
"""Prefix length: the smallest network that a provider gives to one customer."""


def has_token(authorization: str, token: str) -> bool:
    """True if the `Authorization` header has the token, with or without the `Bearer` scheme (some clients
    omit it)."""
    return is_token(_token_in(authorization), token)


def has_login(cookies: Iterable[str], token: str, at_s: int) -> bool:
    return any(is_login(value, token, at_s) for value in cookies)


def guesses_in(authorization: str, cookies: Iterable[str], token: str) -> list[str]:
    """Returns the wrong tokens and cookies of a request. A login that has expired is not a guess."""
    guesses = [_token_in(authorization), *(value for value in cookies if not is_authentic(value, token))]
    return [value for value in guesses if value]


def record_guesses(guesses: Iterable[str]) -> None:
    """Counts the guesses of the current request. Raises: TooManyRequests if its address has too many; the
    response is then delayed."""
    counter: TokenGuesses = current_app.extensions.setdefault("token_guesses", TokenGuesses())
    wait_s = counter.add(request.remote_addr or "", guesses)
    if not wait_s:
        return
    hold: Callable[[float], None] = request.environ.get(DELAY_RESPONSE, lambda _: None)
    hold(DELAY_PER_GUESS_S * wait_s / FORGET_INTERVAL_S)
    raise TooManyRequests(
        "Too many wrong API tokens came from this address: try again later. The right one works at once.",
        retry_after=max(1, round(wait_s)),
    )


@dataclass
class _Record:
    """Leaky bucket of one network: `level` guesses at the time `at_s`; `level` falls by one every
    `FORGET_INTERVAL_S`."""

    at_s: float
    level: float = 0.0
    seen: deque[bytes] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


class TokenGuesses:
    """Counts wrong tokens by address. Thread-safe."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._key = secrets.token_bytes(16)
        self._lock = threading.Lock()
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def add(self, address: str, guesses: Iterable[str]) -> float:
        """Counts the guesses. Returns how many seconds the address must wait: 0 if all guesses are
        repetitions, or while there are at most `FREE_GUESSES`."""
        hashes = [
            hashlib.blake2b(value.encode(errors="replace"), key=self._key).digest() for value in guesses
        ]
        with self._lock:
            record = self._record(_network_of(address))
            new = [digest for digest in dict.fromkeys(hashes) if digest not in record.seen]
            if not new:
                return 0.0
            record.seen.extend(new)
            record.level = min(MOST_COUNTED, record.level + len(new))
            return max(0.0, record.level - FREE_GUESSES) * FORGET_INTERVAL_S

    def _record(self, network: str) -> _Record:
        now_s = self._now_s()
        record = self._records.pop(network, None) or _Record(at_s=now_s)
        record.level = max(0.0, record.level - (now_s - record.at_s) / FORGET_INTERVAL_S)
        record.at_s = now_s
        self._records[network] = record
        while len(self._records) > MOST_ADDRESSES:
            self._records.popitem(last=False)
        return record


def _token_in(authorization: str) -> str:
    header = authorization.strip()
    scheme, _, given = header.partition(" ")
    return given.strip() if scheme.lower() == "bearer" else header


def _network_of(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, IPV6_NETWORK), strict=False))
