"""Delivery status of webhooks, and sending one again, over HTTP."""

from collections.abc import Callable

import pytest

from tests.api.conftest import Api
from tests.delivery.receiver import Answer, Receiver, receiving

BODY = {"id": "job", "output": {"secret": "content"}}


@pytest.fixture
def open_api(make_api: Callable[..., Api]) -> Api:
    return make_api(webhook_private=True)


def test_webhooks_are_listed_newest_first(open_api: Api) -> None:
    added = [open_api.outbox.add("https://a.example/", BODY, f"run {number}") for number in range(3)]
    ids = sorted((each.delivery_id for each in added), reverse=True)
    page = open_api.client.get("/comfyui/webhooks?limit=2").json or {}
    assert ([each["id"] for each in page["webhooks"]], page["next"]) == (ids[:2], ids[1])
    rest = open_api.client.get(f"/comfyui/webhooks?limit=2&before={page['next']}").json or {}
    assert ([each["id"] for each in rest["webhooks"]], rest["next"]) == (ids[2:], None)
    of_run = open_api.client.get("/comfyui/webhooks?workflow_id=run+1").json or {}
    assert [each["id"] for each in of_run["webhooks"]] == [added[1].delivery_id]


def test_one_tells_its_attempts(open_api: Api) -> None:
    with receiving() as receiver:
        receiver.answers = [Answer(status=500)]
        added = open_api.outbox.add(receiver.url(), BODY, "run")
        open_api.outbox.deliver_due()
        webhook = (open_api.client.get(f"/comfyui/webhooks/{added.delivery_id}").json or {})["webhook"]
        assert webhook["attempts"] == [webhook["last_attempt"]]
        assert webhook["last_attempt"] | {"at": 0} == {"at": 0, "status": 500, "trouble": None}
        assert webhook["status"] == "waiting"
        assert webhook["next_attempt_at"] > webhook["last_attempt"]["at"]
        assert webhook["url"] == receiver.url()


def test_one_is_sent_again(open_api: Api) -> None:
    with receiving() as receiver:
        added = open_api.outbox.add(receiver.url(), BODY, "run")
        open_api.outbox.deliver_due()
        answer = open_api.client.post(f"/comfyui/webhooks/{added.delivery_id}/resend")
        assert ((answer.json or {})["webhook"]["status"], answer.status_code) == ("waiting", 200)
        open_api.outbox.deliver_due()
        assert len(receiver.heard) == 2


def test_one_that_is_being_sent(open_api: Api) -> None:
    statuses: list[int] = []

    def answer(receiver: Receiver) -> Answer:
        webhook_id = receiver.heard[-1].headers["Webhook-Id"]
        statuses.append(open_api.client.post(f"/comfyui/webhooks/{webhook_id}/resend").status_code)
        return Answer()

    with receiving() as receiver:
        receiver.answers = [lambda _: answer(receiver)]
        open_api.outbox.add(receiver.url(), BODY, "run")
        open_api.outbox.deliver_due()
    assert statuses == [409]


def test_no_secret_is_answered(open_api: Api) -> None:
    url = "http://me:secret@127.0.0.1:1/hook?token=secret"
    added = open_api.outbox.add(url, BODY, "run")
    open_api.outbox.deliver_due()
    for path in ("", f"/{added.delivery_id}"):
        answer = open_api.client.get(f"/comfyui/webhooks{path}")
        assert "refuses connections" in answer.text
        assert "secret" not in answer.text
        assert "http://127.0.0.1:1/hook?" in answer.text


@pytest.mark.parametrize("url", ["/webhook_1_0", "/..%2F..%2Fserver_id", "/webhook_1_0/resend"])
def test_none_of_that_id(open_api: Api, url: str) -> None:
    ask = open_api.client.post if url.endswith("resend") else open_api.client.get
    answer = ask(f"/comfyui/webhooks{url}")
    assert answer.status_code == 404


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x"])
def test_a_wrong_limit(open_api: Api, query: str) -> None:
    answer = open_api.client.get(f"/comfyui/webhooks?{query}")
    assert (answer.status_code, (answer.json or {})["code"]) == (400, "invalid_request")


def test_the_token_is_needed(make_api: Callable[..., Api]) -> None:
    assert make_api(api_token="secret").client.get("/comfyui/webhooks").status_code == 401


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/hook", "http://169.254.169.254/", "http://[::ffff:10.0.0.1]/", "http://x:0/"]
)
def test_a_job_with_a_webhook_that_may_not_be_sent_is_refused(api: Api, url: str) -> None:
    body = {"input": {"workflow": {"1": {"class_type": "SaveImage", "inputs": {}}}}, "webhook": url}
    answer = api.client.post("/v2/any/run", json=body)
    assert answer.status_code == 400
    assert api.service.unfinished_count() == 0
