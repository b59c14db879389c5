"""Serializes webhook deliveries to JSON for the API."""

from typing import Any

from comfyui_workflow.runs.document import serialize_time
from comfyui_workflow.runs.webhook import Delivery, DeliveryAttempt
from comfyui_workflow.safe_http.urls import shown_url


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
