"""The API token in a request, and a limit for those who guess it.

A right token or login is let in at once, whatever came from the same address before. Every wrong one is a
guess. After a few of them an address is answered 429 instead of 401, and the answer is kept back for seconds
by the loop of the HTTP server, on no thread of it. The same wrong one again is no guess: it tells nothing
new, and a page whose login has ended asks with it again and again.
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

from comfyui_workflow.access.login_cookie import is_login, is_sealed, is_token
from comfyui_workflow.server.body_limits import HOLD_ANSWER

FREE_GUESSES = 10
FORGIVEN_EVERY_S = 6.0
"""Ten guesses a minute are answered at once."""
HELD_S = 1.0
"""For each guess over that."""
MOST_COUNTED = FREE_GUESSES + 10
MOST_ADDRESSES = 10_000
REMEMBERED = 32
"""Of the wrong ones of an address, to know them again."""
IPV6_NETWORK = 64
"""What one customer of a provider has at least."""


def has_token(authorization: str, token: str) -> bool:
    """As a bearer token; or bare, as some clients send theirs."""
    return is_token(_token_in(authorization), token)


def has_login(cookies: Iterable[str], token: str, at_s: int) -> bool:
    return any(is_login(value, token, at_s) for value in cookies)


def guesses_in(authorization: str, cookies: Iterable[str], token: str) -> list[str]:
    """What a request that was not let in has tried. A login that has ended is no guess."""
    tried = [_token_in(authorization), *(value for value in cookies if not is_sealed(value, token))]
    return [value for value in tried if value]


def note_wrong(tried: Iterable[str]) -> None:
    """Of the request that is being answered. Raises: TooManyRequests, for an address that guesses."""
    guesses: TokenGuesses = current_app.extensions.setdefault("token_guesses", TokenGuesses())
    wait_s = guesses.add(request.remote_addr or "", tried)
    if not wait_s:
        return
    hold: Callable[[float], None] = request.environ.get(HOLD_ANSWER, lambda _: None)
    hold(HELD_S * wait_s / FORGIVEN_EVERY_S)
    raise TooManyRequests(
        "Too many wrong API tokens came from this address: try again later. The right one works at once.",
        retry_after=max(1, round(wait_s)),
    )


@dataclass
class _Record:
    """`level` guesses at `at_s`; it falls by one every `FORGIVEN_EVERY_S`."""

    at_s: float
    level: float = 0.0
    known: deque[bytes] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


class TokenGuesses:
    """Wrong tokens by the address that they came from. From any thread."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._key = secrets.token_bytes(16)
        self._lock = threading.Lock()
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def add(self, address: str, tried: Iterable[str]) -> float:
        """For how long the address should wait now, in seconds; 0 while it has guessed a few times only."""
        marks = [hashlib.blake2b(value.encode(errors="replace"), key=self._key).digest() for value in tried]
        with self._lock:
            record = self._record(_network(address))
            new = [mark for mark in dict.fromkeys(marks) if mark not in record.known]
            if not new:
                return 0.0
            record.known.extend(new)
            record.level = min(MOST_COUNTED, record.level + len(new))
            return max(0.0, record.level - FREE_GUESSES) * FORGIVEN_EVERY_S

    def _record(self, network: str) -> _Record:
        now_s = self._now_s()
        record = self._records.pop(network, None) or _Record(at_s=now_s)
        record.level = max(0.0, record.level - (now_s - record.at_s) / FORGIVEN_EVERY_S)
        record.at_s = now_s
        self._records[network] = record
        while len(self._records) > MOST_ADDRESSES:
            self._records.popitem(last=False)
        return record


def _token_in(authorization: str) -> str:
    said = authorization.strip()
    scheme, _, given = said.partition(" ")
    return given.strip() if scheme.lower() == "bearer" else said


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, IPV6_NETWORK), strict=False))
