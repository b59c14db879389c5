"""A short-lived cache of JSON responses: fifty open pages cost as much as one.

How it works: an entry is valid for `SHARED_S`, or longer if the response was expensive. A new version of the
data, or any request that may change something, invalidates all entries at once.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from flask import Blueprint, Response, request

SHARED_S = 0.5
MAX_CORE_SHARE = 0.05
"""Limit for the time spent on one response, as a fraction: a response that took t seconds stays valid for t /
0.05 seconds."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    stamp: tuple[int, int]
    until_s: float
    body: bytes
    etag: str | None


class ResponseCache:
    """Caches responses until `version` changes, a request has changed something, or they expire. Thread-
    safe."""

    def __init__(self, version: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._version = version
        self._clock = clock
        self._changes = 0
        self._entries: dict[str, _Entry] = {}

    def invalidate(self) -> None:
        """Invalidates all entries, also responses that another thread is producing now."""
        self._changes += 1

    def response_of(self, key: str, make: Callable[[], Response]) -> Response:
        """Returns the cached response of `key`, or calls `make`, which must return JSON with status 200."""
        stamp, began_s = (self._version(), self._changes), self._clock()
        entry = self._entries.get(key)
        if entry is None or entry.stamp != stamp or entry.until_s <= began_s:
            entry = self._keep(key, make(), stamp, began_s)
        response = Response(entry.body, mimetype="application/json")
        if entry.etag is not None:
            response.set_etag(entry.etag)
        return response

    def _keep(self, key: str, response: Response, stamp: tuple[int, int], began_s: float) -> _Entry:
        made_s = self._clock()
        response.add_etag()
        made = _Entry(
            stamp=stamp,
            until_s=made_s + max(SHARED_S, (made_s - began_s) / MAX_CORE_SHARE),
            body=response.get_data(),
            etag=response.get_etag()[0],
        )
        # a new dictionary, because other threads may iterate over the old one
        fresh = {each: entry for each, entry in self._entries.items() if entry.until_s > made_s}
        self._entries = {**fresh, key: made}
        return made


def create_response_cache(routes: Blueprint, version: Callable[[], int]) -> ResponseCache:
    """Creates a cache that every request which may change something invalidates, on any route of the app."""
    cache = ResponseCache(version)

    @routes.after_app_request
    def invalidate_after_change(response: Response) -> Response:
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            cache.invalidate()
        return response

    return cache
