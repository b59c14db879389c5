"""A webhook delivery and the result of each attempt. Pure. To JSON and back."""

import hashlib
import secrets
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache

from pydantic import TypeAdapter, ValidationError

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.model import NAME_IN_RECORDS

WAITS_S = (10, 10, 30, 60, 300, 900, 1800, 3600)
"""Waits between attempts. The last wait repeats."""
MOST_ATTEMPTS_KEPT = 100
"""One day has about thirty attempts."""


class DeliveryStatus(StrEnum):
    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, kw_only=True)
class DeliveryAttempt:
    at: datetime
    status: int | None = None
    """HTTP status of the response, if one was received."""
    trouble: str | None = None
    """Reason why no response was received."""

    @property
    def is_success(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A webhook delivery without its content, which may contain many pictures."""

    delivery_id: str
    run_id: str = field(metadata=NAME_IN_RECORDS)
    url: str
    created_at: datetime
    tried_since: datetime
    """When the delivery was created, or when a person requested that it be sent again."""
    next_at: datetime | None
    status: DeliveryStatus = DeliveryStatus.WAITING
    content_bytes: int
    message_id: str | None = None
    """Id of the message in its signature (`delivery.webhooks.standard`). None: it is not signed."""
    is_kept: bool = True
    """False: removed when it has been delivered or given up."""
    failures: int = 0
    """Failed attempts in a row since `tried_since`."""
    attempts: tuple[DeliveryAttempt, ...] = ()

    @property
    def ended_at(self) -> datetime | None:
        """The time of the last attempt, if no further attempt follows."""
        if self.status is DeliveryStatus.WAITING:
            return None
        return self.attempts[-1].at if self.attempts else self.created_at


_deliveries = cache(lambda: TypeAdapter(Delivery))


def delivery_id_of(at: datetime, news: str) -> str:
    """Returns the same id for the same news and time. Ids sort by time."""
    return _delivery_id(at, hashlib.sha256(news.encode()).hexdigest()[:8])


def _delivery_id(at: datetime, letters: str) -> str:
    return f"webhook_{int(at.timestamp())}_{at.microsecond:05x}{letters}"


def new_delivery(
    url: str,
    run_id: str,
    content_bytes: int,
    at: datetime,
    delivery_id: str | None = None,
    *,
    message_id: str | None = None,
    is_kept: bool = True,
) -> Delivery:
    """The id sorts by time."""
    return Delivery(
        delivery_id=delivery_id or _delivery_id(at, secrets.token_hex(4)),
        run_id=run_id,
        url=url,
        created_at=at,
        tried_since=at,
        next_at=at,
        content_bytes=content_bytes,
        message_id=message_id,
        is_kept=is_kept,
    )


def damaged_delivery(
    delivery_id: str, run_id: str, content_bytes: int, at: datetime, reason: str
) -> Delivery:
    """A placeholder for a delivery whose record cannot be read, so its URL is unknown."""
    trouble = (
        f"The record of this webhook was damaged on this machine ({reason}), so it is not known where to "
        "send it. Ask for the status of the job instead"
    )
    return Delivery(
        delivery_id=delivery_id,
        run_id=run_id,
        url="",
        created_at=at,
        tried_since=at,
        next_at=None,
        status=DeliveryStatus.GIVEN_UP,
        content_bytes=content_bytes,
        attempts=(DeliveryAttempt(at=at, trouble=trouble),),
    )


def after_attempt(delivery: Delivery, attempt: DeliveryAttempt, patience_s: float) -> Delivery:
    attempts = (*delivery.attempts, attempt)[-MOST_ATTEMPTS_KEPT:]
    if attempt.is_success:
        return replace(delivery, attempts=attempts, status=DeliveryStatus.DELIVERED, next_at=None)
    next_at = attempt.at + timedelta(seconds=WAITS_S[min(delivery.failures, len(WAITS_S) - 1)])
    is_over = next_at > delivery.tried_since + timedelta(seconds=patience_s)
    return replace(
        delivery,
        attempts=attempts,
        failures=delivery.failures + 1,
        status=DeliveryStatus.GIVEN_UP if is_over else DeliveryStatus.WAITING,
        next_at=None if is_over else next_at,
    )


def reset_retries(delivery: Delivery, at: datetime) -> Delivery:
    """Schedules an attempt now, with the full retry period again."""
    return replace(delivery, status=DeliveryStatus.WAITING, next_at=at, tried_since=at, failures=0)


def encode_delivery(delivery: Delivery) -> bytes:
    return _deliveries().dump_json(delivery, by_alias=True)


def decode_delivery(content: bytes) -> Delivery:
    """Raises: StoreError."""
    try:
        return _deliveries().validate_json(content)
    except ValidationError as error:
        raise StoreError("not the record of a webhook") from error
