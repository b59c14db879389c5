"""Order of webhooks to one server: events of the system do not delay the webhooks of prompts and runs."""

from datetime import UTC, datetime, timedelta

from comfyui_workflow.delivery.webhooks.queue import MOST_AT_ONE_SERVER, DeliveryQueue
from comfyui_workflow.runs.webhook import DeliveryAttempt, after_attempt, new_delivery

AT = datetime(2026, 1, 1, tzinfo=UTC)
LATER = AT + timedelta(hours=1)
SERVER = "https://client.example"


def test_a_backlog_of_system_events_delays_no_webhook() -> None:
    queue = DeliveryQueue()
    events = [new_delivery(f"{SERVER}/system", "system", 1, AT, is_kept=False) for _ in range(50)]
    for each in events:
        failed = DeliveryAttempt(at=AT, status=None, trouble="refused")
        queue.keep(after_attempt(each, failed, 86_400))
    assert len(queue.claim_due(LATER)) == MOST_AT_ONE_SERVER
    webhook = new_delivery(f"{SERVER}/webhook", "run", 1, LATER)
    queue.keep(webhook)
    assert queue.claim_due(LATER) == [webhook]


def test_webhooks_come_before_events_and_new_events_before_those_that_failed() -> None:
    queue = DeliveryQueue()
    failed = DeliveryAttempt(at=AT, status=500, trouble=None)
    old = after_attempt(new_delivery(SERVER, "system", 1, AT, is_kept=False), failed, 86_400)
    new = [new_delivery(SERVER, "system", 1, LATER, is_kept=False) for _ in range(MOST_AT_ONE_SERVER)]
    webhook = new_delivery(SERVER, "run", 1, LATER)
    for each in (old, *new, webhook):
        queue.keep(each)
    assert queue.claim_due(LATER) == [webhook, *new]
