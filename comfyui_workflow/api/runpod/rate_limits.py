"""How often an endpoint may be asked, as RunPod limits it; off unless it is wished for."""

import time

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from werkzeug.exceptions import TooManyRequests

WINDOW_S = 10
MOST = {
    "run": 1000,
    "runsync": 2000,
    "status": 2000,
    "status-sync": 2000,
    "stream": 2000,
    "cancel": 100,
    "retry": 100,
    "purge-queue": 2,
}
"""Within ten seconds, of one endpoint."""


class RateLimits:
    """May be asked from any thread."""

    def __init__(self, *, are_on: bool) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage()) if are_on else None
        self._items = {word: RateLimitItemPerSecond(most, WINDOW_S) for word, most in MOST.items()}

    def check(self, word: str, endpoint: str) -> None:
        """Raises: TooManyRequests, which says when to come again."""
        item = self._items.get(word)
        if self._limiter is None or item is None or self._limiter.hit(item, word, endpoint):
            return
        free_at_s = self._limiter.get_window_stats(item, word, endpoint).reset_time
        raise TooManyRequests(
            f"Too many requests: {word} may be asked {MOST[word]} times in {WINDOW_S} s",
            retry_after=max(1, round(free_at_s - time.time())),
        )
