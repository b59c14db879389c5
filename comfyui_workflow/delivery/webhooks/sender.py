"""Outbox: persistent delivery of webhooks, with retries.

How it works. A webhook is saved on disk before it is sent. A dispatcher thread claims due deliveries from the
`DeliveryQueue` and sends each in its own thread. The result of each attempt is saved. A failed delivery is
retried with a growing delay until `patience_s` is over.

Delivery is at least once: if the server crashes after a webhook was received and before that was saved, the
webhook is sent again with the same id.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from comfyui_workflow.delivery.webhooks.queue import DeliveryQueue
from comfyui_workflow.delivery.webhooks.standard import compact_json, signed_headers
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
    reset_retries,
)
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.safe_http.urls import origin_of
from comfyui_workflow.stores.base import WebhookStore
from comfyui_workflow.stores.journal import now

log = logging.getLogger(__name__)

_MAX_SLEEP_S = 60.0
"""The dispatcher checks the clock at least this often: it may have been set."""


@dataclass(frozen=True, kw_only=True)
class OutboxOptions:
    timeout_s: float = 30
    """Timeout of one attempt."""
    patience_s: float = 86_400
    """Time since the webhook was added (or resent) after which it is given up."""
    kept_s: float = 604_800
    """Time since it was delivered or given up after which a webhook is removed."""
    own_urls: frozenset[str] = frozenset()
    """URLs of the operator, which may have private addresses."""
    signing_key: bytes | None = field(default=None, repr=False)
    """Key of signed webhooks (`standard.signing_key`). None: their signature is left out."""


class Outbox:
    """Sends webhooks. Thread-safe. Only `deliver_due` waits for other servers."""

    def __init__(
        self,
        store: WebhookStore,
        client: GuardedClient,
        options: OutboxOptions | None = None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._own_client = GuardedClient(may_reach_private=True)
        self._store = store
        self._client = client
        self._options = options or OutboxOptions()
        self._clock = clock
        self._changed = threading.Condition()
        self._queue = DeliveryQueue()
        self._is_stopping = False

    def open(self) -> None:
        """Loads the saved deliveries. Raises: ConfigurationError."""
        for delivery in self._store.open():
            self._queue.keep(delivery)

    def start(self) -> None:
        """Starts the dispatcher thread. Must be called after `open`."""
        threading.Thread(target=self._dispatch, name="outbox", daemon=True).start()

    def stop(self, timeout_s: float) -> bool:
        """Starts no more attempts, and waits for the current ones. True if all have ended.

        An attempt that has not ended is repeated after the next start."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._queue.is_idle, timeout_s)

    def check(self, url: str) -> None:
        """Checks a URL from a client, without sending a request. Raises: UrlRefused."""
        self._client.check(url)

    def add(
        self,
        url: str,
        body: Mapping[str, Any],
        run_id: str,
        delivery_id: str | None = None,
        *,
        message_id: str | None = None,
        is_kept: bool = True,
    ) -> Delivery:
        """Adds a webhook. It is on disk before this returns. A known `delivery_id` is not added again. With a
        `message_id`, each attempt is signed, and the receiver gets this id as `webhook-id`.
        `is_kept`: listed for `kept_s` after it has ended.

        A URL that is not allowed is not refused here, but in each attempt: the run has already ended, and the
        failed delivery should be visible in the list. Raises: StoreError; then nothing was added."""
        with self._changed:
            known = self._queue.get(delivery_id) if delivery_id is not None else None
        if known is not None:
            return known
        content = compact_json(body)
        delivery = new_delivery(
            url, run_id, len(content), self._clock(), delivery_id, message_id=message_id, is_kept=is_kept
        )
        self._store.add(delivery, content)
        with self._changed:
            self._queue.keep(delivery)
            self._changed.notify_all()
        return delivery

    def get(self, delivery_id: str) -> Delivery:
        """Returns a delivery. Raises: DeliveryNotFound."""
        with self._changed:
            return self._require(delivery_id)

    def deliveries(self, limit: int, before: str | None = None, run_id: str | None = None) -> list[Delivery]:
        """Returns deliveries, newest first: those older than `before`, of one run if `run_id` is given."""
        with self._changed:
            return self._queue.newest(limit, before, run_id)

    def waiting_count(self) -> int:
        """Returns the number of webhooks that are to be sent."""
        with self._changed:
            return self._queue.waiting_count

    def resend(self, delivery_id: str) -> Delivery:
        """Sends a webhook again, or a waiting one at once. A delivered webhook can also be sent again.

        Raises: DeliveryNotFound; RunConflict while it is being sent; StoreError."""
        with self._changed:
            delivery = self._require(delivery_id)
            if self._queue.is_claimed(delivery_id):
                raise RunConflict(f"The webhook is being sent right now: {delivery_id}")
            self._queue.claim(delivery)
        try:
            again = reset_retries(delivery, self._clock())
            self._store.save(again)
            delivery = again
        finally:
            self._release(delivery)
        return delivery

    def deliver_due(self) -> int:
        """Sends all due webhooks one after another, in this thread. Returns the number of attempts."""
        tries = 0
        while due := self._claim_due():
            for delivery in due:
                self._attempt(delivery)
            tries += len(due)
        return tries

    def _dispatch(self) -> None:
        while not self._is_stopping:
            due = self._claim_due(may_wait=True)
            for delivery in due:
                name = f"webhook {delivery.delivery_id}"
                threading.Thread(target=self._attempt, args=(delivery,), name=name, daemon=True).start()

    def _claim_due(self, *, may_wait: bool = False) -> list[Delivery]:
        """Claims due deliveries and removes old ones.

        With `may_wait`, waits for a change if there are none."""
        with self._changed:
            at = self._clock()
            old = self._queue.remove_old(at, self._options.kept_s)
            due = [] if self._is_stopping else self._queue.claim_due(at)
            if may_wait and not due and not old and not self._is_stopping:
                self._changed.wait(min(self._queue.until_next_s(at) or _MAX_SLEEP_S, _MAX_SLEEP_S))
        for delivery_id in old:
            self._store.remove(delivery_id)
        return due

    def _attempt(self, delivery: Delivery) -> None:
        try:
            delivery = after_attempt(delivery, self._send(delivery), self._options.patience_s)
            _log_attempt(delivery)
            self._store.save(delivery)
        except StoreError as error:
            log.error("%s: %s; after a restart it may be sent again", delivery.delivery_id, error)
        finally:
            self._release(delivery)

    def _send(self, delivery: Delivery) -> DeliveryAttempt:
        status = trouble = None
        try:
            content = self._store.content(delivery.delivery_id)
            headers = {"Content-Type": "application/json", **self._message_headers(delivery, content)}
            client = self._own_client if delivery.url in self._options.own_urls else self._client
            status = client.post(delivery.url, content, headers, self._options.timeout_s)
        except (UrlRefused, WebError, StoreError) as error:
            trouble = str(error)
        except Exception as error:
            log.exception("%s: internal error", delivery.delivery_id)
            trouble = f"Internal error: {type(error).__name__}"
        return DeliveryAttempt(at=self._clock(), status=status, trouble=trouble)

    def _message_headers(self, delivery: Delivery, content: bytes) -> dict[str, str]:
        """Returns the id of the webhook, and the signature of this attempt if it is a signed one."""
        if delivery.message_id is None:
            return {"Webhook-Id": delivery.delivery_id}
        return signed_headers(self._options.signing_key, delivery.message_id, self._clock(), content)

    def _release(self, delivery: Delivery) -> None:
        with self._changed:
            self._queue.release(delivery)
            self._changed.notify_all()

    def _require(self, delivery_id: str) -> Delivery:
        delivery = self._queue.get(delivery_id)
        if delivery is None:
            raise DeliveryNotFound(f"Webhook not found: {delivery_id}")
        return delivery


def _log_attempt(delivery: Delivery) -> None:
    """Logs the result of the last attempt. Only the origin of the URL is logged: the rest may be a secret."""
    last = delivery.attempts[-1]
    level = logging.WARNING if delivery.status is DeliveryStatus.GIVEN_UP else logging.INFO
    result = last.trouble or f"status {last.status}"
    log.log(
        level,
        "%s of %s to %s: %s (%s)",
        delivery.delivery_id,
        delivery.run_id,
        origin_of(delivery.url),
        delivery.status.value,
        result,
    )
