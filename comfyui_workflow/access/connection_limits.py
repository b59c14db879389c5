"""How long a client may take for each part of a request and its answer, and which connections go first when
there are too many. Pure; the server and the local ports ask it about their connections.

A connection is in one `Stage` at a time, and each stage has a credit of seconds that time uses up. Where a
stage has a lowest rate, every byte that moves gives some of it back, up to the full credit. So a slow client
that goes on is served for as long as it takes, one that stops is cut off after the credit, and one that sends
a byte now and then is cut off as well.
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
"""What a client is told whose request was incomplete for too long."""


class Stage(IntEnum):
    """The state of a connection, in the order in which connections are given up for new ones."""

    REFUSED = 0
    """It was answered with an error; what it still sends is read and dropped, or its answer is held back."""
    SILENT = 1
    """It has not sent a byte."""
    HEAD = 2
    """A request has begun, its headers are incomplete."""
    IDLE = 3
    """It was answered and may ask again."""
    BODY = 4
    """The headers are complete, the body is not."""
    SENDING = 5
    """An answer is on its way to the client."""
    WORKING = 6
    """A request waits for its answer. Never closed from our side."""


@dataclass(frozen=True, kw_only=True)
class Credit:
    """`seconds` without progress; each byte that moves gives back `1 / bytes_per_s` of them."""

    seconds: float
    bytes_per_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Times in seconds. At most `most` connections in all, and half of them from one other machine."""

    head_s: float = 10.0
    idle_s: float = 120.0
    refused_s: float = 30.0
    body: Credit = Credit(seconds=60.0, bytes_per_s=500.0)
    sending: Credit = Credit(seconds=120.0, bytes_per_s=500.0)
    most: int = 10_000

    def credit(self, stage: Stage) -> Credit | None:
        """None: no limit."""
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
    """One look at a connection. `part` differs for each request; `moved_bytes` never falls within a stage of
    a part."""

    stage: Stage
    part: Hashable
    moved_bytes: int


@dataclass(slots=True)
class Clock:
    """The time that a connection has left in its stage. `since_s` is when the stage began."""

    since_s: float
    _seen: Observed | None = None
    _seen_at_s: float = field(default=0.0)
    _left_s: float = field(default=0.0)

    def is_over(self, seen: Observed, limits: ConnectionLimits, now_s: float) -> bool:
        """Called at least every few seconds. The last look counts, so time that passes between two stages is
        not held against the client."""
        before, credit = self._seen, limits.credit(seen.stage)
        is_new = before is None or (before.stage, before.part) != (seen.stage, seen.part)
        if credit is None or is_new or before is None:
            self.since_s = self.since_s if before is None else now_s
            self._left_s = credit.seconds if credit else 0.0
        else:
            gained_s = (
                (seen.moved_bytes - before.moved_bytes) / credit.bytes_per_s if credit.bytes_per_s else 0.0
            )
            self._left_s = min(credit.seconds, self._left_s - (now_s - self._seen_at_s) + gained_s)
        self._seen, self._seen_at_s = seen, now_s
        return credit is not None and self._left_s < 0


@dataclass(frozen=True, kw_only=True)
class Candidate(Generic[T]):
    """A connection that may have to go. `since_s`: when its stage began."""

    connection: T
    address: str
    stage: Stage
    since_s: float


def chosen_to_close(candidates: Iterable[Candidate[T]], count: int, now_s: float) -> list[T]:
    """At most `count` connections to close for new ones, all of the addresses that have most of them: in the
    order of their stages, the oldest first. A stage that has just begun is given up last: the next bytes of
    an honest client are on their way."""
    closable = [each for each in candidates if each.stage is not Stage.WORKING]
    by_address = Counter(each.address for each in closable)
    largest = max(by_address.values(), default=0)

    def order(each: Candidate[T]) -> tuple[bool, Stage, float]:
        return now_s - each.since_s < YOUNG_S, each.stage, each.since_s

    crowded = sorted((each for each in closable if by_address[each.address] == largest), key=order)
    return [each.connection for each in crowded[:count]]
