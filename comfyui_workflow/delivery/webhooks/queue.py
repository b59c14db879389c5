"""Which webhooks there are, which of them somebody has to do with, and which are next. It has no lock, no
thread, no file and no network, and is given the time."""

from collections import Counter
from datetime import datetime, timedelta

from comfyui_workflow.runs.webhook import Delivery
from comfyui_workflow.safe_http.urls import origin_of

MOST_AT_ONCE = 8
MOST_AT_ONE_SERVER = 2
"""One that does not answer keeps no more places than these from the others."""


class DeliveryQueue:
    def __init__(self) -> None:
        self._known: dict[str, Delivery] = {}
        self._waiting: dict[str, Delivery] = {}
        """The known ones that are to be sent."""
        self._claimed: dict[str, str] = {}
        """Those that a thread has to do with, and their servers."""

    @property
    def is_at_rest(self) -> bool:
        return not self._claimed

    def get(self, delivery_id: str) -> Delivery | None:
        return self._known.get(delivery_id)

    def newest(self, limit: int, before: str | None, run_id: str | None) -> list[Delivery]:
        wanted = [
            delivery_id
            for delivery_id, delivery in self._known.items()
            if (before is None or delivery_id < before) and run_id in (None, delivery.run_id)
        ]
        return [self._known[delivery_id] for delivery_id in sorted(wanted, reverse=True)[:limit]]

    def keep(self, delivery: Delivery) -> None:
        """A new one, or as it is now."""
        self._known[delivery.delivery_id] = delivery
        if delivery.next_at is None:
            self._waiting.pop(delivery.delivery_id, None)
        else:
            self._waiting[delivery.delivery_id] = delivery

    def is_claimed(self, delivery_id: str) -> bool:
        return delivery_id in self._claimed

    def claim(self, delivery: Delivery) -> None:
        """Until it is released nobody else has to do with it."""
        self._claimed[delivery.delivery_id] = origin_of(delivery.url)

    def release(self, delivery: Delivery) -> None:
        del self._claimed[delivery.delivery_id]
        self.keep(delivery)

    def claim_due(self, at: datetime) -> list[Delivery]:
        """As many as there are places for."""
        places, found = Counter(self._claimed.values()), []
        for delivery in self._waiting.values():
            if len(self._claimed) >= MOST_AT_ONCE:
                break
            if delivery.next_at is None or delivery.next_at > at or self.is_claimed(delivery.delivery_id):
                continue
            server = origin_of(delivery.url)
            if places[server] < MOST_AT_ONE_SERVER:
                places[server] += 1
                self.claim(delivery)
                found.append(delivery)
        return found

    def until_next_s(self, at: datetime) -> float | None:
        """Until one is due that is not due yet; None if there is none."""
        times = [each.next_at for each in self._waiting.values() if each.next_at and each.next_at > at]
        return (min(times) - at).total_seconds() if times else None

    def take_out_old(self, at: datetime, kept_s: float) -> list[str]:
        """Those that ended so long ago are not known any more."""
        limit = at - timedelta(seconds=kept_s)
        old = [
            delivery_id
            for delivery_id, delivery in self._known.items()
            if delivery.ended_at and delivery.ended_at < limit and not self.is_claimed(delivery_id)
        ]
        for delivery_id in old:
            del self._known[delivery_id]
        return old
