"""Signed webhooks, verified by the library that receivers use."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from comfyui_workflow.app import outbox_options
from comfyui_workflow.delivery.webhooks.sender import Outbox, OutboxOptions
from comfyui_workflow.delivery.webhooks.standard import compact_json, event_body, signed_headers, signing_key
from comfyui_workflow.errors import ConfigurationError
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.settings import Settings
from comfyui_workflow.stores.files.webhooks import FileWebhookStore
from tests.delivery.receiver import Answer, Receiver

SECRET = base64.b64encode(b"a key of thirty-two bytes, 123456").decode()


@pytest.mark.parametrize("secret", [SECRET, f"whsec_{SECRET}", SECRET.rstrip("="), f" {SECRET}\n"])
def test_the_signature_is_the_one_of_the_specification(secret: str) -> None:
    content = json.dumps({"a": "ü"}).encode()
    headers = signed_headers(signing_key(secret), "msg_1", datetime.now(UTC), content)
    assert Webhook(SECRET).verify(content.decode(), headers) == {"a": "ü"}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(content.decode() + " ", headers)


@pytest.mark.parametrize("secret", ["", "whsec_", "not base64!", "äöü", "a"])
def test_a_secret_that_is_not_base64_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match=r"^must be base64") as caught:
        signing_key(secret)
    assert "not base64!" not in str(caught.value)
    if secret:
        with pytest.raises(ConfigurationError, match=r"^COMFYUI_WORKFLOW_WEBHOOK_SECRET must"):
            outbox_options(Settings(webhook_secret=secret))


def test_a_body_has_its_type_and_time() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    body = event_body("prompt.complete", at, {"id": "x"})
    assert body == {"type": "prompt.complete", "timestamp": "2026-01-02T03:04:05.678Z", "id": "x"}


def test_a_body_is_written_as_receivers_in_javascript_write_it() -> None:
    assert compact_json({"a": ["ü", 1, None]}) == '{"a":["ü",1,null]}'.encode()
    assert (
        compact_json({"b": 1, "10": 8.0, "9": {"2": 0.5, "01": 1}}) == b'{"9":{"2":0.5,"01":1},"10":8,"b":1}'
    )
    assert compact_json({"a": "\ud800"}) == b'{"a":"\\ud800"}'


def test_each_attempt_is_signed_anew_after_a_restart_too(tmp_path: Path, receiver: Receiver) -> None:
    """Receivers refuse an old timestamp, so a late attempt needs a signature of its own."""
    started = datetime.now(UTC)
    late = started + timedelta(hours=2)
    receiver.answers = [Answer(status=500), Answer(status=200)]
    opened(tmp_path, lambda: started).add(receiver.url(), {"a": 1}, "run", message_id="prompt-1")
    opened(tmp_path, lambda: started).deliver_due()
    opened(tmp_path, lambda: late).deliver_due()
    first, second = ({name.lower(): value for name, value in each.headers.items()} for each in receiver.heard)
    assert first["webhook-id"] == second["webhook-id"] == "prompt-1"
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 7200
    assert Webhook(SECRET).verify(receiver.heard[0].content.decode(), first) == {"a": 1}
    assert first["webhook-signature"] != second["webhook-signature"]


def test_without_a_secret_there_is_no_signature(tmp_path: Path, receiver: Receiver) -> None:
    outbox = Outbox(FileWebhookStore(tmp_path), GuardedClient(may_reach_private=True))
    outbox.open()
    outbox.add(receiver.url(), {}, "run", message_id="m")
    outbox.deliver_due()
    names = {name.lower() for name in receiver.heard[0].headers}
    assert {"webhook-id", "webhook-timestamp"} <= names
    assert "webhook-signature" not in names


def opened(directory: Path, clock: Callable[[], datetime]) -> Outbox:
    options = OutboxOptions(signing_key=signing_key(SECRET))
    outbox = Outbox(FileWebhookStore(directory), GuardedClient(may_reach_private=True), options, clock)
    outbox.open()
    return outbox
