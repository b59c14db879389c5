"""The outbox: webhooks that are delivered sooner or later, whatever happens to this server or to theirs.

At least once: one that was taken just before this server died is sent again, under the same id.
"""

import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from comfyui_workflow.delivery.webhooks.queue import DeliveryQueue
from comfyui_workflow.errors import (
    DeliveryNotFound,
    RunConflict,
    StoreError,
    UrlRefused,
    WebError,
)
from comfyui_workflow.runs.webhook import (
    Delivery,
    DeliveryAttempt,
    DeliveryStatus,
    after_attempt,
    new_delivery,
    once_more,
)
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.safe_http.urls import origin_of
from comfyui_workflow.stores.base import WebhookStore
from comfyui_workflow.stores.journal import now

log = logging.getLogger(__name__)

_LONGEST_REST_S = 60.0
"""Then the clock is looked at again: somebody may have set it."""


@dataclass(frozen=True, kw_only=True)
class OutboxOptions:
    timeout_s: float = 30
    """Limit of one attempt."""
    patience_s: float = 86_400
    """After this time since it was added a webhook is given up."""
    kept_s: float = 604_800
    """After this time since it was delivered or given up a webhook is forgotten."""


class Outbox:
    """Every method may be called from any thread, and none but `deliver_due` waits for anybody's server."""

    def __init__(
        self,
        store: WebhookStore,
        client: GuardedClient,
        options: OutboxOptions | None = None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._store = store
        self._client = client
        self._options = options or OutboxOptions()
        self._clock = clock
        self._changed = threading.Condition()
        self._row = DeliveryQueue()
        self._is_stopping = False

    def open(self) -> None:
        """Raises: ConfigurationError."""
        for delivery in self._store.open():
            self._row.keep(delivery)

    def start(self) -> None:
        """To be called once it is open."""
        threading.Thread(target=self._dispatch, name="outbox", daemon=True).start()

    def stop(self, timeout_s: float) -> bool:
        """Begin nothing more; whether what was under way has ended. What has not is sent again after the next
        start."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._row.is_at_rest, timeout_s)

    def check(self, url: str) -> None:
        """For whoever takes a URL from a client; asks nobody. Raises: UrlRefused."""
        self._client.check(url)

    def add(self, url: str, body: Mapping[str, Any], run_id: str, delivery_id: str | None = None) -> Delivery:
        """On disk when this returns; what is there under that id already is not added again. A URL that is
        not allowed is refused at each try, not here: the run is over by now, and who asks for its webhook
        should find it. Raises: StoreError; then there is none."""
        with self._changed:
            known = self._row.get(delivery_id) if delivery_id is not None else None
        if known is not None:
            return known
        content = json.dumps(body).encode()
        delivery = new_delivery(url, run_id, len(content), self._clock(), delivery_id)
        self._store.add(delivery, content)
        with self._changed:
            self._row.keep(delivery)
            self._changed.notify_all()
        return delivery

    def get(self, delivery_id: str) -> Delivery:
        """Raises: DeliveryNotFound."""
        with self._changed:
            return self._require(delivery_id)

    def deliveries(self, limit: int, before: str | None = None, run_id: str | None = None) -> list[Delivery]:
        """Newest first, older than the delivery `before`; of one run, if it is named."""
        with self._changed:
            return self._row.newest(limit, before, run_id)

    def resend(self, delivery_id: str) -> Delivery:
        """Also one that was delivered; one that waits need not wait any longer. Raises: DeliveryNotFound;
        RunConflict while it is being sent; StoreError."""
        with self._changed:
            delivery = self._require(delivery_id)
            if self._row.is_claimed(delivery_id):
                raise RunConflict(f"The webhook is being sent right now: {delivery_id}")
            self._row.claim(delivery)
        try:
            again = once_more(delivery, self._clock())
            self._store.save(again)
            delivery = again
        finally:
            self._release(delivery)
        return delivery

    def deliver_due(self) -> int:
        """All that are due now, one after another, in this thread; how many tries that were."""
        tries = 0
        while due := self._claim_due():
            for delivery in due:
                self._attempt(delivery)
            tries += len(due)
        return tries

    def _dispatch(self) -> None:
        while not self._is_stopping:
            due = self._claim_due(rests=True)
            for delivery in due:
                name = f"webhook {delivery.delivery_id}"
                threading.Thread(target=self._attempt, args=(delivery,), name=name, daemon=True).start()

    def _claim_due(self, *, rests: bool = False) -> list[Delivery]:
        """If none is due, after a rest that may have changed it, or not."""
        with self._changed:
            at = self._clock()
            old = self._row.take_out_old(at, self._options.kept_s)
            due = [] if self._is_stopping else self._row.claim_due(at)
            if rests and not due and not old and not self._is_stopping:
                self._changed.wait(min(self._row.until_next_s(at) or _LONGEST_REST_S, _LONGEST_REST_S))
        for delivery_id in old:
            self._store.remove(delivery_id)
        return due

    def _attempt(self, delivery: Delivery) -> None:
        try:
            delivery = after_attempt(delivery, self._try(delivery), self._options.patience_s)
            _tell(delivery)
            self._store.save(delivery)
        except StoreError as error:
            log.error("%s: %s; after a restart it may be sent once more", delivery.delivery_id, error)
        finally:
            self._release(delivery)

    def _try(self, delivery: Delivery) -> DeliveryAttempt:
        status = trouble = None
        try:
            content = self._store.content(delivery.delivery_id)
            headers = {"Content-Type": "application/json", "Webhook-Id": delivery.delivery_id}
            status = self._client.post(delivery.url, content, headers, self._options.timeout_s)
        except (UrlRefused, WebError, StoreError) as error:
            trouble = str(error)
        except Exception as error:
            log.exception("%s: internal error", delivery.delivery_id)
            trouble = f"Internal error: {type(error).__name__}"
        return DeliveryAttempt(at=self._clock(), status=status, trouble=trouble)

    def _release(self, delivery: Delivery) -> None:
        with self._changed:
            self._row.release(delivery)
            self._changed.notify_all()

    def _require(self, delivery_id: str) -> Delivery:
        delivery = self._row.get(delivery_id)
        if delivery is None:
            raise DeliveryNotFound(f"Webhook not found: {delivery_id}")
        return delivery


def _tell(delivery: Delivery) -> None:
    """Of the URL no more than its server: what comes after may be a secret."""
    last = delivery.attempts[-1]
    level = logging.WARNING if delivery.status is DeliveryStatus.GIVEN_UP else logging.INFO
    said = last.trouble or f"status {last.status}"
    log.log(
        level,
        "%s of %s to %s: %s (%s)",
        delivery.delivery_id,
        delivery.run_id,
        origin_of(delivery.url),
        delivery.status.value,
        said,
    )
