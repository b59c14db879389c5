"""Rate limits per endpoint, with the values of RunPod. Off by default (`COMFYUI_WORKFLOW_RATE_LIMITS`)."""

import time
from typing import TYPE_CHECKING

from werkzeug.exceptions import TooManyRequests

if TYPE_CHECKING:
    from limits import RateLimitItemPerSecond
    from limits.strategies import MovingWindowRateLimiter

WINDOW_S = 10
MAX_REQUESTS = {
    "run": 1000,
    "runsync": 2000,
    "status": 2000,
    "status-sync": 2000,
    "stream": 2000,
    "cancel": 100,
    "retry": 100,
    "purge-queue": 2,
}
"""Maximum number of requests per endpoint within `WINDOW_S`, by operation."""


class RateLimits:
    """Counts requests in a moving window. Thread-safe."""

    def __init__(self, *, enabled: bool) -> None:
        self._limiter: MovingWindowRateLimiter | None = None
        self._items: dict[str, RateLimitItemPerSecond] = {}
        if enabled:
            self._enable()

    def _enable(self) -> None:
        from limits import RateLimitItemPerSecond  # noqa: PLC0415 - slow to import, and rarely used
        from limits.storage import MemoryStorage  # noqa: PLC0415
        from limits.strategies import MovingWindowRateLimiter  # noqa: PLC0415

        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._items = {
            operation: RateLimitItemPerSecond(limit, WINDOW_S) for operation, limit in MAX_REQUESTS.items()
        }

    def check(self, operation: str, endpoint: str) -> None:
        """Counts one request. Raises: TooManyRequests, with `Retry-After` in seconds."""
        item = self._items.get(operation)
        if self._limiter is None or item is None or self._limiter.hit(item, operation, endpoint):
            return
        free_at_s = self._limiter.get_window_stats(item, operation, endpoint).reset_time
        raise TooManyRequests(
            f"Too many requests: at most {MAX_REQUESTS[operation]} {operation} requests in {WINDOW_S} s",
            retry_after=max(1, round(free_at_s - time.time())),
        )
