"""Webhooks about runs and batches: signed, sent again, and sent after a kill."""

import base64
import json
import time
from collections.abc import Callable

import pytest
import requests
from standardwebhooks import Webhook

from tests.delivery.receiver import Answer, Heard, Receiver, receiving
from tests.instance import Instance
from tests.integration.graphs import failing, painted, slow
from tests.server_process import Json, ServerProcess

MakeServer = Callable[..., ServerProcess]
SECRET = base64.b64encode(b"a secret of thirty-two characters").decode()


def until_heard(receiver: Receiver, count: int, timeout_s: float = 60) -> list[Heard]:
    deadline = time.monotonic() + timeout_s
    while len(receiver.heard) < count:
        assert time.monotonic() < deadline, receiver.heard
        time.sleep(0.02)
    return receiver.heard


def verified(heard: Heard, secret: str = SECRET) -> Json:
    found: Json = Webhook(secret).verify(heard.content.decode(), heard.headers)
    return found


@pytest.mark.parametrize("secret", [SECRET, f"whsec_{SECRET}"])
def test_a_completed_run_is_notified_of_with_a_signature(
    make_server: MakeServer, instance: Instance, secret: str
) -> None:
    server = make_server(webhook_private="true", webhook_secret=secret)
    with receiving() as receiver:
        run_id = server.execute(instance.ssh_string, painted(1), webhook=receiver.url("/hook?token=abcxyz"))
        (heard,) = until_heard(receiver, 1)
        message = verified(heard)
        assert (message["type"], message["workflow_id"]) == ("run.completed", run_id)
        assert message["run"]["status"] == "completed"
        (output,) = message["outputs"]
        picture = requests.get(output["url"], timeout=30)
        assert (picture.status_code, len(picture.content)) == (200, output["size_bytes"])
        done = server.until(run_id, lambda p: p["webhook"]["status"] == "delivered")
        assert done["webhook"]["webhook_id"] == heard.headers["webhook-id"]
    assert "abcxyz" not in server.log()
    assert SECRET not in server.log()


def test_a_failed_run_tells_why_and_is_sent_again_after_an_error(
    make_server: MakeServer, instance: Instance
) -> None:
    server = make_server(webhook_private="true")
    with receiving() as receiver:
        receiver.answers = [Answer(status=503), Answer()]
        run_id = server.execute(instance.ssh_string, failing("no luck"), webhook=receiver.url())
        failed = server.until(run_id, lambda p: p["webhook"]["message"])
        assert failed["webhook"]["message"].endswith("answers with status 503; it is sent again")
        first, second = until_heard(receiver, 2)
        assert (first.content, first.headers["webhook-id"]) == (second.content, second.headers["webhook-id"])
        message = json.loads(first.content)
        assert message["type"] == "run.failed"
        assert "no luck" in message["run"]["error_message"]


def test_a_server_killed_while_the_run_executes_notifies_of_it_later(
    make_server: MakeServer, instance: Instance
) -> None:
    server = make_server(webhook_private="true", webhook_secret=SECRET)
    with receiving() as receiver:
        run_id = server.execute(instance.ssh_string, slow(3, steps=5), webhook=receiver.url())
        server.until_status(run_id, "executing")
        server.kill()
        server.start()
        (heard,) = until_heard(receiver, 1)
        assert verified(heard)["workflow_id"] == run_id
        server.until(run_id, lambda p: p["webhook"]["status"] == "delivered")
    assert len(receiver.heard) == 1


def test_a_batch_is_notified_of_when_its_last_run_has_ended(
    make_server: MakeServer, instance: Instance
) -> None:
    server = make_server(webhook_private="true")
    with receiving() as receiver:
        hook = {"url": receiver.url(), "events": ["batch.completed", "run.cancelled"]}
        rows = [{"1.color": color} for color in (1, 2)]
        body = {
            "ssh_connection": instance.ssh_string,
            "workflow": painted(1),
            "rows": rows,
            "output_dir": str(server.output_dir),
            "webhook": hook,
        }
        answer = server.post("/batch", body)
        assert answer.status_code == 200, answer.text
        (heard,) = until_heard(receiver, 1)
        message = json.loads(heard.content)
        assert (message["type"], message["batch_id"]) == ("batch.completed", answer.json()["batch_id"])
        assert (message["batch"]["counts"]["completed"], len(message["outputs"])) == (2, 2)


def test_messages_of_comfyui_are_sent_to_the_operator(make_server: MakeServer, instance: Instance) -> None:
    with receiving() as receiver:
        server = make_server(
            system_webhook_url=receiver.url("/system"),
            system_webhook_events="execution_start,executed,execution_success",
            system_meta='{"batch": "abc"}',
            webhook_secret=SECRET,
        )
        run_id = server.execute(instance.ssh_string, painted(4))
        server.until_finished(run_id)
        prompt_id = server.progress(run_id)["prompt_id"]
        messages = [verified(heard) for heard in until_heard(receiver, 3)]
        assert {each["event"] for each in messages} == {
            "comfy.execution_start",
            "comfy.executed",
            "comfy.execution_success",
        }
        assert {each["data"]["data"]["prompt_id"] for each in messages} == {prompt_id}
        assert {each["metadata"]["batch"] for each in messages} == {"abc"}
