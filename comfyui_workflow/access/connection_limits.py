"""Connection limits: time limits per stage of a request, and the choice of connections to close.

Pure functions without I/O. The HTTP server and the local ports use them for their connections.

How it works. A connection is in one `Stage` at a time. Each stage has a credit of seconds that time uses up.
If a stage has a minimum rate, each byte that moves adds to the credit, up to its full value. So a slow client
that makes progress is served without a total time limit. A client that stops is disconnected when the credit
is used up, and so is a client that sends one byte now and then (slowloris).
"""

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
YOUNG_S = 1.0
TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 56\r\n\r\nThe request was not complete in time. Please send again."
)
"""Response to a client whose request was incomplete for too long."""


class Stage(IntEnum):
    """State of a connection. Connections in a lower stage are closed first to make room for new ones."""

    REFUSED = 0
    """The request was refused. Further data is read and dropped, or the response is delayed."""
    SILENT = 1
    """The client has not sent a byte."""
    HEAD = 2
    """A request has begun; its headers are incomplete."""
    IDLE = 3
    """Keep-alive between two requests."""
    BODY = 4
    """The headers are complete; the body is not."""
    SENDING = 5
    """The response is being sent."""
    WORKING = 6
    """The application handles the request. The server never closes such a connection."""


@dataclass(frozen=True, kw_only=True)
class Credit:
    """Allowed `seconds` without progress. Each byte that moves adds `1 / bytes_per_s` seconds again."""

    seconds: float
    bytes_per_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Time limits in seconds.

    `most`: maximum number of connections; one other machine may have half of them."""

    head_s: float = 10.0
    idle_s: float = 120.0
    refused_s: float = 30.0
    body: Credit = Credit(seconds=60.0, bytes_per_s=500.0)
    sending: Credit = Credit(seconds=120.0, bytes_per_s=500.0)
    most: int = 10_000

    def credit(self, stage: Stage) -> Credit | None:
        """Returns the credit of a stage. None: no limit."""
        return self._credits[stage]

    @cached_property
    def _credits(self) -> dict[Stage, Credit | None]:
        return {
            Stage.REFUSED: Credit(seconds=self.refused_s),
            Stage.SILENT: Credit(seconds=self.head_s),
            Stage.HEAD: Credit(seconds=self.head_s),
            Stage.IDLE: Credit(seconds=self.idle_s),
            Stage.BODY: self.body,
            Stage.SENDING: self.sending,
            Stage.WORKING: None,
        }


class Observed(NamedTuple):
    """Observed state of a connection. `part` differs for each request. `moved_bytes` never decreases within
    one stage of one part."""

    stage: Stage
    part: Hashable
    moved_bytes: int


@dataclass(slots=True)
class Clock:
    """The remaining time of a connection in its stage. `since_s` is the start of the stage."""

    since_s: float
    _last: Observed | None = None
    _last_at_s: float = field(default=0.0)
    _left_s: float = field(default=0.0)

    def is_over(self, observed: Observed, limits: ConnectionLimits, now_s: float) -> bool:
        """Updates the credit. True if it is used up. Must be called at least every few seconds.

        Only time between two observations of the same stage counts, so a client does not lose time between
        stages."""
        before, credit = self._last, limits.credit(observed.stage)
        is_new = before is None or (before.stage, before.part) != (observed.stage, observed.part)
        if credit is None or is_new or before is None:
            self.since_s = self.since_s if before is None else now_s
            self._left_s = credit.seconds if credit else 0.0
        else:
            gained_s = (
                (observed.moved_bytes - before.moved_bytes) / credit.bytes_per_s
                if credit.bytes_per_s
                else 0.0
            )
            self._left_s = min(credit.seconds, self._left_s - (now_s - self._last_at_s) + gained_s)
        self._last, self._last_at_s = observed, now_s
        return credit is not None and self._left_s < 0


@dataclass(frozen=True, kw_only=True)
class Candidate(Generic[T]):
    """A connection that may be closed. `since_s` is the start of its stage."""

    connection: T
    address: str
    stage: Stage
    since_s: float


def connections_to_close(candidates: Iterable[Candidate[T]], count: int, now_s: float) -> list[T]:
    """Returns at most `count` connections to close to make room for new ones.

    All belong to the addresses with the most connections. They are ordered by stage, then the oldest first. A
    stage younger than `YOUNG_S` comes last: the next bytes of an honest client may be on the way."""
    closable = [each for each in candidates if each.stage is not Stage.WORKING]
    by_address = Counter(each.address for each in closable)
    largest = max(by_address.values(), default=0)

    def order(each: Candidate[T]) -> tuple[bool, Stage, float]:
        return now_s - each.since_s < YOUNG_S, each.stage, each.since_s

    crowded = sorted((each for each in closable if by_address[each.address] == largest), key=order)
    return [each.connection for each in crowded[:count]]
