"""The field `webhook` of `execute` and `batch`: what is accepted and refused, and what the documents say."""

from collections.abc import Callable
from typing import Any

import pytest

from comfyui_workflow.runs.events import RunCompleted
from tests.api.conftest import Api
from tests.api.test_workflow import GRAPH, SSH, execute
from tests.delivery.receiver import Answer, receiving


@pytest.fixture
def open_api(make_api: Callable[..., Api]) -> Api:
    return make_api(webhook_private=True)


def batch(api: Api, **body: Any) -> Any:
    fields = {"ssh_connection": SSH, "workflow": GRAPH, "rows": [{}, {}], **body}
    return api.client.post("/comfyui/workflow/batch", json=fields)


def refusal(answer: Any) -> tuple[str, str]:
    assert answer.status_code == 400, answer.text
    return answer.json["code"], answer.json["message"]


def test_a_url_is_told_of_every_end_of_a_run(api: Api) -> None:
    run_id = execute(api, workflow=GRAPH, webhook="https://8.8.8.8/hook?token=secret").json["workflow_id"]
    order = api.journal.get(run_id).request.webhook
    assert order is not None
    assert (order.url, list(order.events)) == (
        "https://8.8.8.8/hook?token=secret",
        ["run.completed", "run.failed", "run.cancelled"],
    )
    assert order.server_url == "http://localhost"
    progress = api.client.get(f"/comfyui/workflow/{run_id}/progress")
    assert progress.json["progress"]["webhook"] == {
        "url": "https://8.8.8.8/hook?…",
        "events": ["run.completed", "run.failed", "run.cancelled"],
        "status": "expected",
        "message": None,
        "webhook_id": None,
        "next_attempt_at": None,
    }
    assert "secret" not in progress.text
    assert "secret" not in api.client.get(f"/comfyui/workflow/{run_id}/request").text


def test_a_repeated_run_has_no_webhook_of_the_first(api: Api) -> None:
    first = execute(api, workflow=GRAPH, webhook="https://8.8.8.8/").json["workflow_id"]
    again = api.client.post("/comfyui/workflow/execute", json={"again": first}).json["workflow_id"]
    assert api.journal.get(again).request.webhook is None


def test_the_url_of_the_server_can_be_set(make_api: Callable[..., Api]) -> None:
    api = make_api(server_url="https://render.example/")
    run_id = execute(api, workflow=GRAPH, webhook="https://8.8.8.8/").json["workflow_id"]
    order = api.journal.get(run_id).request.webhook
    assert order is not None
    assert order.server_url == "https://render.example"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/hook",
        "http://169.254.169.254/latest",
        "http://[::ffff:10.0.0.1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://x:0/",
        "ftp://8.8.8.8/",
        "file:///etc/passwd",
        "https://8.8.8.8/a b",
        "//8.8.8.8",
        "x" * 9000,
    ],
)
def test_a_url_that_may_not_be_requested_is_refused(api: Api, url: str) -> None:
    for answer in (execute(api, workflow=GRAPH, webhook=url), batch(api, webhook={"url": url})):
        code, message = refusal(answer)
        assert code == "url_refused"
        assert message.startswith("webhook: ")
    assert api.service.unfinished_count() == 0


@pytest.mark.parametrize(
    ("webhook", "said"),
    [
        ("", "webhook must be a URL"),
        (7, "webhook must be a URL"),
        ([], "webhook must be a URL"),
        ({}, "webhook must be a URL"),
        ({"url": None}, "webhook must be a URL"),
        ({"url": {"a": 1}}, "webhook must be a URL"),
        ({"url": "https://8.8.8.8/", "event": ["run.failed"]}, "event is not a field of webhook"),
        ({"url": "https://8.8.8.8/", "events": []}, "webhook.events must be a list of run.completed"),
        ({"url": "https://8.8.8.8/", "events": "run.failed"}, "webhook.events must be a list"),
        ({"url": "https://8.8.8.8/", "events": [["run.failed"]]}, "webhook.events must be a list"),
        ({"url": "https://8.8.8.8/", "events": ["run.done"]}, "webhook.events must be a list"),
        ({"url": "https://8.8.8.8/", "events": ["batch.completed"]}, "webhook.events must be a list"),
    ],
)
def test_a_webhook_in_another_form_is_refused(api: Api, webhook: object, said: str) -> None:
    code, message = refusal(execute(api, workflow=GRAPH, webhook=webhook))
    assert (code, message[: len(said)]) == ("invalid_request", said)


def test_a_batch_has_its_own_event_and_those_of_its_runs(api: Api) -> None:
    events = ["batch.completed", "run.failed"]
    answer = batch(api, webhook={"url": "https://8.8.8.8/", "events": events})
    requests = [api.journal.get(each).request for each in answer.json["workflow_ids"]]
    assert [list(each.webhook.events) for each in requests if each.webhook] == [["run.failed"]] * 2
    assert [list(each.batch_webhook.events) for each in requests if each.batch_webhook] == [
        ["batch.completed"]
    ] * 2
    shown = api.client.get(f"/comfyui/workflow/batch/{answer.json['batch_id']}/progress").json["progress"]
    assert shown["webhook"]["events"] == ["batch.completed"]


def test_by_default_a_batch_is_notified_of_once(api: Api) -> None:
    answer = batch(api, webhook="https://8.8.8.8/")
    request = api.journal.get(answer.json["workflow_ids"][0]).request
    assert (request.webhook, request.batch_webhook is None) == (None, False)


def test_each_run_of_a_batch_can_have_its_own(api: Api) -> None:
    run = {"ssh_connection": SSH, "workflow": GRAPH}
    runs = [{**run, "webhook": "https://8.8.4.4/"}, run]
    hook = {"url": "https://8.8.8.8/", "events": ["run.completed"]}
    answer = api.client.post("/comfyui/workflow/batch", json={"runs": runs, "webhook": hook})
    requests = [api.journal.get(each).request for each in answer.json["workflow_ids"]]
    assert [each.webhook.url for each in requests if each.webhook] == ["https://8.8.4.4/", "https://8.8.8.8/"]
    _, message = refusal(
        api.client.post("/comfyui/workflow/batch", json={"runs": [{**run, "webhook": "http://10.0.0.1/"}]})
    )
    assert message.startswith("runs[0]: webhook: ")


def test_a_failed_notification_is_in_the_document_of_the_run(open_api: Api) -> None:
    with receiving() as receiver:
        receiver.answers = [Answer(status=500), Answer()]
        run_id = execute(open_api, workflow=GRAPH, webhook=receiver.url()).json["workflow_id"]
        open_api.journal.record(run_id, RunCompleted())
        open_api.outbox.deliver_due()
        shown = open_api.client.get(f"/comfyui/workflow/{run_id}/progress").json["progress"]["webhook"]
        origin = f"http://127.0.0.1:{receiver.port}"
        said = f"Notification failed: {origin} answers with status 500; it is sent again"
        assert (shown["status"], shown["message"]) == ("waiting", said)
        open_api.client.post(f"/comfyui/webhooks/{shown['webhook_id']}/resend")
        open_api.outbox.deliver_due()
        shown = open_api.client.get(f"/comfyui/workflow/{run_id}/progress").json["progress"]["webhook"]
        assert (shown["status"], shown["message"]) == ("delivered", None)
        assert len({heard.headers["webhook-id"] for heard in receiver.heard}) == 1
