"""System events: messages of ComfyUI's websocket as webhooks to the operator."""

import json
import math
import threading
from typing import Any

import pytest

from comfyui_workflow.delivery.webhooks import system_events
from comfyui_workflow.delivery.webhooks.sender import Outbox, OutboxOptions
from comfyui_workflow.delivery.webhooks.system_events import SystemEventOptions, SystemEvents
from comfyui_workflow.errors import ConfigurationError
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.settings import load_settings
from comfyui_workflow.stores.memory import MemoryWebhookStore
from tests.delivery.receiver import Answer, Receiver, receiving

PROGRESS = {"type": "progress", "data": {"value": 3, "max": 20, "prompt_id": "p"}}


def options(url: str, *events: str) -> SystemEventOptions:
    return SystemEventOptions(url=url, events=frozenset(events), metadata={"batch": "abc"})


def outbox_to(url: str) -> Outbox:
    """The address of the receiver is private: only a URL of the operator may have it."""
    client = GuardedClient(may_reach_private=False)
    outbox = Outbox(MemoryWebhookStore(), client, OutboxOptions(own_urls=frozenset({url})))
    outbox.open()
    return outbox


def sent(outbox: Outbox, events: SystemEvents, receiver: Receiver) -> list[dict[str, Any]]:
    events.stop(10)
    outbox.deliver_due()
    return [json.loads(heard.content) for heard in receiver.heard]


def test_a_wanted_message_is_sent_with_its_metadata() -> None:
    with receiving() as receiver:
        outbox = outbox_to(receiver.url())
        events = SystemEvents(options(receiver.url(), "progress"))
        events.start(outbox)
        hear = events.listener("root@gpu:22")
        for message in (PROGRESS, {"type": "status", "data": {}}, {"data": {}}, {"type": ["progress"]}):
            hear(message)
        assert sent(outbox, events, receiver) == [
            {
                "event": "comfy.progress",
                "data": PROGRESS,
                "metadata": {"batch": "abc"},
                "instance": "root@gpu:22",
            }
        ]
        assert receiver.heard[0].headers["webhook-id"].startswith("msg_")


def test_events_of_storage_have_their_own_name() -> None:
    with receiving() as receiver:
        outbox = outbox_to(receiver.url())
        events = SystemEvents(options(receiver.url(), "file_downloaded"))
        events.start(outbox)
        events.report("file_downloaded", {"url": "u"})
        (body,) = sent(outbox, events, receiver)
    assert body == {"event": "storage.file_downloaded", "data": {"url": "u"}, "metadata": {"batch": "abc"}}


def test_a_delivered_event_is_not_kept_and_a_failed_one_is_sent_again() -> None:
    with receiving() as receiver:
        outbox = outbox_to(receiver.url())
        events = SystemEvents(options(receiver.url(), "progress"))
        events.start(outbox)
        events.listener("gpu")(PROGRESS)
        receiver.answers = [Answer(status=500), Answer()]
        sent(outbox, events, receiver)
        (waiting,) = outbox.deliveries(10)
        assert waiting.attempts[-1].status == 500
        outbox.resend(waiting.delivery_id)
        outbox.deliver_due()
        outbox.deliver_due()
        assert outbox.deliveries(10) == []


def test_a_url_of_a_client_may_still_not_be_private() -> None:
    with receiving() as receiver:
        outbox = outbox_to(receiver.url())
        outbox.add(receiver.url("/other"), {}, "run")
        outbox.deliver_due()
        assert receiver.heard == []


def test_a_message_that_is_not_json_is_left_out() -> None:
    with receiving() as receiver:
        outbox = outbox_to(receiver.url())
        events = SystemEvents(options(receiver.url(), "progress"))
        events.start(outbox)
        events.listener("gpu")({**PROGRESS, "data": {"value": math.nan}})
        events.listener("gpu")(PROGRESS)
        assert [body["data"] for body in sent(outbox, events, receiver)] == [PROGRESS]


def test_too_many_events_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_events, "MOST_WAITING", 3)
    with receiving() as receiver:
        outbox = outbox_to(receiver.url())
        events = SystemEvents(options(receiver.url(), "progress"))
        for _ in range(5):
            events.listener("gpu")(PROGRESS)
        events.start(outbox)
        assert len(sent(outbox, events, receiver)) == 3


def test_without_a_url_nothing_is_started() -> None:
    before = threading.active_count()
    events = SystemEvents(None)
    events.start(outbox_to(""))
    events.listener("gpu")(PROGRESS)
    events.stop(1)
    assert threading.active_count() == before


def test_the_settings_have_the_names_of_comfyui_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYSTEM_WEBHOOK_URL", "http://10.0.0.1/system")
    monkeypatch.setenv("SYSTEM_WEBHOOK_EVENTS", "progress, executed")
    monkeypatch.setenv("SYSTEM_META_batch", "abc")
    settings = load_settings()
    assert settings.system_webhook_url == "http://10.0.0.1/system"
    assert (settings.system_webhook_events, settings.system_meta) == (
        ("progress", "executed"),
        {"batch": "abc"},
    )
    monkeypatch.setenv("SYSTEM_WEBHOOK_EVENTS", "all")
    assert len(load_settings().system_webhook_events) == 13
    monkeypatch.setenv("SYSTEM_WEBHOOK_EVENTS", "progres")
    with pytest.raises(ConfigurationError, match=r"SYSTEM_WEBHOOK_EVENTS: .*'progres' is not one of all"):
        load_settings()
    monkeypatch.setenv("SYSTEM_WEBHOOK_EVENTS", "")
    monkeypatch.setenv("SYSTEM_WEBHOOK_URL", "ftp://x")
    with pytest.raises(ConfigurationError, match=r"SYSTEM_WEBHOOK_URL: .*must begin with http"):
        load_settings()


def test_the_nodes_of_a_progress_have_the_id_of_the_client_too() -> None:
    node = {"value": 1, "prompt_id": "p"}
    message = {"type": "progress_state", "data": {"prompt_id": "p", "nodes": {"3": node, "4": "odd"}}}
    named = system_events.with_names(message, {"p": "mine"}.get)
    assert named["data"] == {"prompt_id": "mine", "nodes": {"3": {**node, "prompt_id": "mine"}, "4": "odd"}}
    for other in ({"data": 3}, {"url": "u"}, None, {"data": {"prompt_id": ["p"]}}):
        assert system_events.with_names(other, {"p": "mine"}.get) == other
