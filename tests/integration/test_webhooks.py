"""Webhooks of a server that is a process of its own, and is killed."""

import threading
import time
from pathlib import Path

import requests

from comfyui_workflow.delivery.webhooks.sender import Outbox
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.stores.files.webhooks import FileWebhookStore
from tests.delivery.receiver import Answer, Heard, receiving
from tests.server_process import Json, ServerProcess


def test_a_server_killed_before_it_has_the_answer_sends_the_webhook_again(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, webhook_private="true")
    is_serving, is_dead = threading.Event(), threading.Event()

    def kill(_: Heard) -> Answer:
        assert is_serving.wait(60)
        server.kill()
        is_dead.set()
        return Answer()

    waiting = Outbox(FileWebhookStore(server.data_dir / "webhooks"), GuardedClient(may_reach_private=True))
    waiting.open()
    with receiving() as receiver:
        receiver.answers = [kill, Answer()]
        added = waiting.add(receiver.url("/hook?token=secret"), {"id": "job"}, "run")
        server.start()
        is_serving.set()
        assert is_dead.wait(60)
        with server:
            webhook = _until_delivered(server, added.delivery_id)
    assert webhook["attempt_count"] == 1
    assert [heard.headers["Webhook-Id"] for heard in receiver.heard] == [added.delivery_id] * 2
    assert added.delivery_id in server.log()
    assert "secret" not in server.log()


def _until_delivered(server: ServerProcess, webhook_id: str) -> Json:
    url = server.url.replace("/comfyui/workflow", f"/comfyui/webhooks/{webhook_id}")
    deadline = time.monotonic() + 60
    while (webhook := requests.get(url, timeout=30).json()["webhook"])["status"] != "delivered":
        assert time.monotonic() < deadline, webhook
        time.sleep(0.02)
    found: Json = webhook
    return found
