"""In-memory queue of webhook deliveries: known, due and claimed ones.

It has no locks, threads, files or network access. The caller passes the current time."""

from collections import Counter
from datetime import datetime, timedelta

from comfyui_workflow.runs.webhook import Delivery
from comfyui_workflow.safe_http.urls import origin_of

MOST_AT_ONCE = 8
MOST_AT_ONE_SERVER = 2
"""Maximum number of concurrent deliveries to one server: a server that hangs must not block the others.
Events of the system have as many of their own: they are many, and nobody waits for them."""


class DeliveryQueue:
    def __init__(self) -> None:
        self._known: dict[str, Delivery] = {}
        self._waiting: dict[str, Delivery] = {}
        """The known deliveries that are to be sent."""
        self._claimed: dict[str, tuple[str, bool]] = {}
        """(server, whether it is kept) of each delivery that a thread is handling, by delivery id."""

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        return not self._claimed

    def get(self, delivery_id: str) -> Delivery | None:
        return self._known.get(delivery_id)

    def newest(self, limit: int, before: str | None, run_id: str | None) -> list[Delivery]:
        """Returns deliveries, newest first: those older than `before`, of one run if it is given."""
        wanted = [
            delivery_id
            for delivery_id, delivery in self._known.items()
            if (before is None or delivery_id < before) and run_id in (None, delivery.run_id)
        ]
        return [self._known[delivery_id] for delivery_id in sorted(wanted, reverse=True)[:limit]]

    def keep(self, delivery: Delivery) -> None:
        """Adds a delivery, or replaces its state."""
        self._known[delivery.delivery_id] = delivery
        if delivery.next_at is None:
            self._waiting.pop(delivery.delivery_id, None)
        else:
            self._waiting[delivery.delivery_id] = delivery

    def is_claimed(self, delivery_id: str) -> bool:
        return delivery_id in self._claimed

    def claim(self, delivery: Delivery) -> None:
        """Claims a delivery: until it is released, no other thread handles it."""
        self._claimed[delivery.delivery_id] = _lane(delivery)

    def release(self, delivery: Delivery) -> None:
        """Ends a claim, and saves the new state of the delivery."""
        del self._claimed[delivery.delivery_id]
        self.keep(delivery)

    def claim_due(self, at: datetime) -> list[Delivery]:
        """Claims and returns the due deliveries, as many as the limits allow."""
        active, found = Counter(self._claimed.values()), []
        for delivery in sorted(self._waiting.values(), key=_rank):
            if len(self._claimed) >= MOST_AT_ONCE:
                break
            if delivery.next_at is None or delivery.next_at > at or self.is_claimed(delivery.delivery_id):
                continue
            lane = _lane(delivery)
            if active[lane] < MOST_AT_ONE_SERVER:
                active[lane] += 1
                self.claim(delivery)
                found.append(delivery)
        return found

    def until_next_s(self, at: datetime) -> float | None:
        """Returns the seconds until the next delivery becomes due. None if there is none."""
        times = [each.next_at for each in self._waiting.values() if each.next_at and each.next_at > at]
        return (min(times) - at).total_seconds() if times else None

    def remove_old(self, at: datetime, kept_s: float) -> list[str]:
        """Removes deliveries that ended more than `kept_s` seconds ago, and ended ones that are not kept.
        Returns their ids."""
        limit = at - timedelta(seconds=kept_s)
        old = [
            delivery_id
            for delivery_id, delivery in self._known.items()
            if delivery.ended_at
            and (delivery.ended_at < limit or not delivery.is_kept)
            and not self.is_claimed(delivery_id)
        ]
        for delivery_id in old:
            del self._known[delivery_id]
        return old


def _lane(delivery: Delivery) -> tuple[str, bool]:
    return origin_of(delivery.url), delivery.is_kept


def _rank(delivery: Delivery) -> int:
    """Webhooks before events of the system; of those the new ones first: an old one is of little use."""
    if delivery.is_kept:
        return 0
    return 2 if delivery.attempts else 1
