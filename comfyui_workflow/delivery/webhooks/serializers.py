"""Serializes webhook deliveries to JSON for the API."""

from typing import Any

from comfyui_workflow.runs.document import serialize_time
from comfyui_workflow.runs.notification import WebhookOrder
from comfyui_workflow.runs.webhook import Delivery, DeliveryAttempt
from comfyui_workflow.safe_http.urls import origin_of, shown_url


def delivery_document(delivery: Delivery) -> dict[str, Any]:
    """Returns a delivery as in the list.

    It contains no secrets: a URL without its secret parts, and no content."""
    last = delivery.attempts[-1] if delivery.attempts else None
    return {
        "id": delivery.delivery_id,
        "workflow_id": delivery.run_id,
        "url": shown_url(delivery.url),
        "status": delivery.status.value,
        "created_at": serialize_time(delivery.created_at),
        "content_bytes": delivery.content_bytes,
        "attempt_count": len(delivery.attempts),
        "last_attempt": last and attempt_document(last),
        "next_attempt_at": serialize_time(delivery.next_at),
    }


def attempt_document(attempt: DeliveryAttempt) -> dict[str, Any]:
    return {"at": serialize_time(attempt.at), "status": attempt.status, "trouble": attempt.trouble}


def notification_document(
    order: WebhookOrder, newest: Delivery | None, *, is_due: bool, is_over: bool
) -> dict[str, Any]:
    """Returns the state of a notification, for the document of its run or batch.

    `newest` is the last delivery about the subject; `is_due` tells if its end is one of the events;
    `is_over`, if it has ended."""
    delivery = newest if is_over and is_due else None
    return {
        "url": shown_url(order.url),
        "events": [event.value for event in order.events],
        "status": _status(delivery, is_due=is_due, is_over=is_over),
        "message": None if delivery is None else _failure(delivery),
        "webhook_id": None if delivery is None else delivery.delivery_id,
        "next_attempt_at": None if delivery is None else serialize_time(delivery.next_at),
    }


def _status(delivery: Delivery | None, *, is_due: bool, is_over: bool) -> str:
    if delivery is not None:
        return delivery.status.value
    if not is_over:
        return "expected"
    return "unknown" if is_due else "not_requested"


def _failure(delivery: Delivery) -> str | None:
    """Returns a sentence about the last attempt, if it has failed."""
    last = delivery.attempts[-1] if delivery.attempts else None
    if last is None or last.is_success:
        return None
    reason = last.trouble or f"{origin_of(delivery.url)} answers with status {last.status}"
    outcome = "it is sent again" if delivery.next_at else "it is not sent again unless you ask for it"
    return f"Notification failed: {reason}; {outcome}"
