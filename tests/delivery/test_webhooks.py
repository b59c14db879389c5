"""Tests of webhook delivery across failures of both servers. The tests set the clock."""

import json
import logging
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from comfyui_workflow.delivery.webhooks.queue import MOST_AT_ONE_SERVER, DeliveryQueue
from comfyui_workflow.delivery.webhooks.sender import Outbox, OutboxOptions
from comfyui_workflow.errors import (
    ConfigurationError,
    DeliveryNotFound,
    RunConflict,
    StoreError,
    UrlRefused,
)
from comfyui_workflow.runs.webhook import (
    Delivery,
    DeliveryAttempt,
    DeliveryStatus,
    after_attempt,
    delivery_id_of,
    new_delivery,
)
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.stores.files.webhooks import FileWebhookStore
from tests.delivery.receiver import (
    ELSEWHERE,
    LOOPBACK,
    Answer,
    Heard,
    Names,
    Receiver,
    only_loopback,
    receiving,
)

RUN = "comfyui_workflow_1_a"
BODY = {"id": RUN, "status": "COMPLETED", "output": {"images": [{"data": "aGVsbG8=", "name": "ü"}]}}
AT = datetime(2026, 1, 1, tzinfo=UTC)
OPTIONS = OutboxOptions(timeout_s=10)


class Clock:
    def __init__(self) -> None:
        self.at = AT

    def __call__(self) -> datetime:
        return self.at

    def forward(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_outbox(tmp_path: Path, clock: Clock) -> Callable[..., Outbox]:
    """Each call returns a server that starts with the same files."""

    def opened(directory: Path = tmp_path / "webhooks", client: GuardedClient | None = None) -> Outbox:
        outbox = Outbox(
            FileWebhookStore(directory), client or GuardedClient(may_reach_private=True), OPTIONS, clock
        )
        outbox.open()
        return outbox

    return opened


@pytest.fixture
def outbox(open_outbox: Callable[..., Outbox]) -> Outbox:
    return open_outbox()


def test_a_webhook_is_on_disk_and_then_delivered(
    outbox: Outbox, receiver: Receiver, tmp_path: Path, clock: Clock
) -> None:
    added = outbox.add(receiver.url(), BODY, RUN)
    files = [path for path in (tmp_path / "webhooks").iterdir() if path.is_file()]
    assert {path.name for path in files} == {f"{added.delivery_id}.json", f"{added.delivery_id}.content"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert outbox.deliver_due() == 1
    [heard] = receiver.heard
    assert json.loads(heard.content) == BODY
    assert heard.headers["Content-Type"] == "application/json"
    assert heard.headers["Webhook-Id"] == added.delivery_id
    delivered = outbox.get(added.delivery_id)
    assert (delivered.status, delivered.next_at) == (DeliveryStatus.DELIVERED, None)
    assert delivered.attempts == (DeliveryAttempt(at=AT, status=200),)
    clock.forward(86_400)
    assert outbox.deliver_due() == 0


def test_one_that_is_not_taken_is_tried_again(outbox: Outbox, receiver: Receiver, clock: Clock) -> None:
    receiver.answers = [Answer(status=500), Answer(status=404), Answer(status=204)]
    added = outbox.add(receiver.url(), BODY, RUN)
    assert outbox.deliver_due() == 1
    clock.forward(9.9)
    assert outbox.deliver_due() == 0
    clock.forward(0.1)
    assert outbox.deliver_due() == 1
    clock.forward(10)
    assert outbox.deliver_due() == 1
    attempts = outbox.get(added.delivery_id).attempts
    assert [(each.status, (each.at - AT).total_seconds()) for each in attempts] == [
        (500, 0),
        (404, 10),
        (204, 20),
    ]
    assert outbox.get(added.delivery_id).status is DeliveryStatus.DELIVERED
    assert len({heard.content for heard in receiver.heard}) == 1


def test_waits_grow_until_it_is_given_up() -> None:
    delivery, waits = new_delivery("https://a.example/", RUN, 2, AT), []
    while delivery.next_at is not None:
        before = delivery.next_at
        delivery = after_attempt(delivery, DeliveryAttempt(at=before, trouble="no"), 86_400)
        waits.append((delivery.next_at or before) - before)
    assert [each.total_seconds() for each in waits[:9]] == [10, 10, 30, 60, 300, 900, 1800, 3600, 3600]
    assert delivery.status is DeliveryStatus.GIVEN_UP
    assert timedelta(hours=22) < delivery.attempts[-1].at - AT <= timedelta(hours=24)
    assert len(delivery.attempts) < 40


@pytest.mark.parametrize(
    "attempt", [DeliveryAttempt(at=AT, status=status) for status in (199, 301, 303, 410, 503)]
)
def test_only_2xx_is_taken(attempt: DeliveryAttempt) -> None:
    assert after_attempt(new_delivery("https://a.example/", RUN, 2, AT), attempt, 100).next_at is not None


def test_after_a_restart_it_goes_on_where_it_was(
    open_outbox: Callable[..., Outbox], receiver: Receiver, clock: Clock
) -> None:
    receiver.answers = [Answer(status=500), Answer()]
    before = open_outbox()
    added = before.add(receiver.url(), BODY, RUN)
    before.deliver_due()
    after = open_outbox()
    assert after.get(added.delivery_id) == before.get(added.delivery_id)
    assert after.deliver_due() == 0
    clock.forward(10)
    assert after.deliver_due() == 1
    assert [json.loads(heard.content) for heard in receiver.heard] == [BODY, BODY]
    assert open_outbox().get(added.delivery_id).status is DeliveryStatus.DELIVERED


def test_one_whose_answer_was_not_saved_is_sent_again_under_the_same_id(
    open_outbox: Callable[..., Outbox], receiver: Receiver, tmp_path: Path
) -> None:
    """A copy of the files at the time of the response: what a server leaves that is killed at that moment."""
    killed = tmp_path / "killed"

    def answer(_: Heard) -> Answer:
        shutil.copytree(tmp_path / "webhooks", killed)
        return Answer()

    receiver.answers = [answer, Answer()]
    added = (before := open_outbox()).add(receiver.url(), BODY, RUN)
    before.deliver_due()
    after = open_outbox(killed)
    assert after.deliver_due() == 1
    assert [heard.headers["Webhook-Id"] for heard in receiver.heard] == [added.delivery_id] * 2
    assert after.get(added.delivery_id).status is DeliveryStatus.DELIVERED


def test_the_same_news_is_sent_once(
    open_outbox: Callable[..., Outbox], receiver: Receiver, clock: Clock
) -> None:
    one, other = delivery_id_of(AT, "it is done"), delivery_id_of(AT, "it is done again")
    before = open_outbox()
    added = before.add(receiver.url(), BODY, RUN, one)
    assert before.add(receiver.url(), BODY, RUN, one) == added
    before.deliver_due()
    after = open_outbox()
    assert after.add(receiver.url(), BODY, RUN, one).status is DeliveryStatus.DELIVERED
    assert after.add(receiver.url(), BODY, RUN, other).delivery_id == other
    after.deliver_due()
    assert [heard.headers["Webhook-Id"] for heard in receiver.heard] == [one, other]


def test_what_a_killed_server_has_not_taken_on_leaves_nothing(
    open_outbox: Callable[..., Outbox], receiver: Receiver, tmp_path: Path
) -> None:
    added = open_outbox().add(receiver.url(), BODY, RUN)
    directory = tmp_path / "webhooks"
    (directory / f"{added.delivery_id}.json").rename(directory / f".{added.delivery_id}.json.0a1b2c")
    (directory / "notes of a person.txt").write_text("hello")
    outbox = open_outbox()
    assert outbox.deliveries(10) == []
    assert outbox.deliver_due() == 0
    assert {path.name for path in directory.iterdir()} == {"set-aside", "notes of a person.txt"}


@pytest.mark.parametrize("content", [b"", b"{", b"null", b'{"delivery_id": 1}'])
def test_one_whose_record_cannot_be_read_is_listed_as_given_up(
    open_outbox: Callable[..., Outbox], receiver: Receiver, tmp_path: Path, content: bytes
) -> None:
    outbox = open_outbox()
    broken, whole = outbox.add(receiver.url(), BODY, RUN), outbox.add(receiver.url(), BODY, RUN)
    (tmp_path / "webhooks" / f"{broken.delivery_id}.json").write_bytes(content)
    for _ in range(2):
        again = open_outbox()
        assert {each.delivery_id for each in again.deliveries(10)} == {broken.delivery_id, whole.delivery_id}
        told = again.get(broken.delivery_id)
        assert told.status is DeliveryStatus.GIVEN_UP
        assert "damaged" in str(told.attempts[-1].trouble)
        assert again.get(whole.delivery_id) == whole
        assert len(list((tmp_path / "webhooks" / "set-aside").iterdir())) == 1
    again.resend(broken.delivery_id)
    again.deliver_due()
    assert len(receiver.heard) <= 1  # only the undamaged one: the URL of the other is lost


def test_a_directory_that_cannot_be_used(tmp_path: Path, open_outbox: Callable[..., Outbox]) -> None:
    (tmp_path / "webhooks").write_text("")
    with pytest.raises(ConfigurationError, match="webhooks cannot be used"):
        open_outbox()


def test_none_is_taken_on_that_the_disk_does_not_take(
    outbox: Outbox, receiver: Receiver, full_disk: threading.Event, tmp_path: Path
) -> None:
    full_disk.set()
    with pytest.raises(StoreError, match="No space left"):
        outbox.add(receiver.url(), BODY, RUN)
    full_disk.clear()
    assert outbox.deliveries(10) == []
    assert [path.name for path in (tmp_path / "webhooks").iterdir()] == ["set-aside"]


def test_content_without_a_record_does_not_stay(
    outbox: Outbox, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("The webhook cannot be saved: No space left on device")

    monkeypatch.setattr(FileWebhookStore, "save", fail)
    with pytest.raises(StoreError):
        outbox.add(receiver.url(), BODY, RUN)
    assert [path.name for path in (tmp_path / "webhooks").iterdir()] == ["set-aside"]


def test_a_full_disk_sends_nothing_twice_while_the_server_runs(
    outbox: Outbox, receiver: Receiver, full_disk: threading.Event, clock: Clock
) -> None:
    added = outbox.add(receiver.url(), BODY, RUN)
    full_disk.set()
    assert outbox.deliver_due() == 1
    clock.forward(3600)
    assert outbox.deliver_due() == 0
    assert outbox.get(added.delivery_id).status is DeliveryStatus.DELIVERED


def test_content_that_is_gone_is_trouble(outbox: Outbox, receiver: Receiver, tmp_path: Path) -> None:
    added = outbox.add(receiver.url(), BODY, RUN)
    (tmp_path / "webhooks" / f"{added.delivery_id}.content").unlink()
    outbox.deliver_due()
    [attempt] = outbox.get(added.delivery_id).attempts
    assert (attempt.status, attempt.trouble) == (
        None,
        "The content of the webhook cannot be read: No such file or directory",
    )


def test_one_is_sent_again_when_somebody_asks(outbox: Outbox, receiver: Receiver, clock: Clock) -> None:
    added = outbox.add(receiver.url(), BODY, RUN)
    outbox.deliver_due()
    clock.forward(60)
    again = outbox.resend(added.delivery_id)
    assert (again.status, again.next_at) == (DeliveryStatus.WAITING, clock.at)
    assert outbox.deliver_due() == 1
    assert len(receiver.heard) == 2
    assert [each.status for each in outbox.get(added.delivery_id).attempts] == [200, 200]


def test_one_that_was_given_up_has_new_patience(
    outbox: Outbox, open_outbox: Callable[..., Outbox], receiver: Receiver, clock: Clock
) -> None:
    receiver.answers = [Answer(status=500), Answer(status=500), Answer()]
    added = outbox.add(receiver.url(), BODY, RUN)
    clock.forward(100_000)
    outbox.deliver_due()
    assert outbox.get(added.delivery_id).status is DeliveryStatus.GIVEN_UP
    outbox.resend(added.delivery_id)
    after = open_outbox()
    assert after.deliver_due() == 1
    assert after.get(added.delivery_id).status is DeliveryStatus.WAITING
    clock.forward(10)
    assert after.deliver_due() == 1
    assert after.get(added.delivery_id).status is DeliveryStatus.DELIVERED


def test_one_that_waits_need_not_wait(outbox: Outbox, receiver: Receiver) -> None:
    receiver.answers = [Answer(status=500), Answer()]
    added = outbox.add(receiver.url(), BODY, RUN)
    outbox.deliver_due()
    outbox.resend(added.delivery_id)
    assert outbox.deliver_due() == 1


def test_one_that_is_being_sent_is_not_sent_twice(outbox: Outbox, receiver: Receiver) -> None:
    refused: list[bool] = []

    def answer(heard: Heard) -> Answer:
        with pytest.raises(RunConflict):
            outbox.resend(heard.headers["Webhook-Id"])
        refused.append(True)
        return Answer()

    receiver.answers = [answer]
    outbox.add(receiver.url(), BODY, RUN)
    outbox.deliver_due()
    assert refused == [True]


def test_none_of_that_id(outbox: Outbox) -> None:
    for ask in (outbox.get, outbox.resend):
        with pytest.raises(DeliveryNotFound):
            ask("webhook_1_0")


def test_the_list_is_in_pages_and_of_one_run(outbox: Outbox, receiver: Receiver, clock: Clock) -> None:
    added = []
    for number in range(5):
        added.append(outbox.add(receiver.url(), BODY, f"run {number % 2}").delivery_id)
        clock.forward(0.5)
    newest = added[::-1]
    assert [each.delivery_id for each in outbox.deliveries(2)] == newest[:2]
    assert [each.delivery_id for each in outbox.deliveries(9, before=newest[1])] == newest[2:]
    assert [each.delivery_id for each in outbox.deliveries(9, run_id="run 1")] == [added[3], added[1]]


def test_old_ones_are_forgotten_and_those_that_wait_are_not(
    outbox: Outbox, open_outbox: Callable[..., Outbox], receiver: Receiver, clock: Clock, tmp_path: Path
) -> None:
    outbox.add(receiver.url(), BODY, RUN)
    again = outbox.add(receiver.url(), BODY, RUN)
    outbox.deliver_due()
    clock.forward(600_000)
    outbox.resend(again.delivery_id)
    receiver.answers = [Answer(), Answer(status=500)]
    outbox.deliver_due()
    clock.forward(5_000)
    young = outbox.add(receiver.url(), BODY, RUN)
    outbox.deliver_due()
    assert [each.delivery_id for each in outbox.deliveries(10)] == [young.delivery_id, again.delivery_id]
    assert open_outbox().deliveries(10) == outbox.deliveries(10)
    assert len(list((tmp_path / "webhooks").iterdir())) == 5


def test_urls_are_checked_for_whoever_takes_them(open_outbox: Callable[..., Outbox]) -> None:
    outbox = open_outbox(client=GuardedClient(may_reach_private=False))
    outbox.check("https://hooks.example.com/a")
    for url in ("file:///etc/passwd", "http://169.254.169.254/latest/meta-data", "hooks.example.com"):
        with pytest.raises(UrlRefused):
            outbox.check(url)


def test_a_name_that_becomes_private_is_refused_at_each_try(
    open_outbox: Callable[..., Outbox], receiver: Receiver, clock: Clock
) -> None:
    names = Names(evil_example=[[ELSEWHERE], [LOOPBACK, ELSEWHERE], [LOOPBACK]])
    client = GuardedClient(may_reach_private=False, resolve=names, is_public=only_loopback)
    outbox = open_outbox(client=client)
    added = outbox.add(receiver.url(host="evil.example"), BODY, RUN)
    for _ in range(3):
        outbox.deliver_due()
        clock.forward(10)
    attempts = outbox.get(added.delivery_id).attempts
    assert [each.status for each in attempts] == [None, None, 200]
    assert "not public" in (attempts[0].trouble or "")
    assert len(receiver.heard) == 1


def test_no_secret_of_a_url_is_logged(
    outbox: Outbox, receiver: Receiver, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    url = receiver.url("/secret-path?token=secret-query").replace("//", "//me:secret-password@")
    receiver.answers = [
        Answer(status=307, headers={"Location": "http://127.0.0.1:1/secret-place?secret"}),
        Answer(status=500),
        Answer(),
    ]
    with caplog.at_level(logging.DEBUG):
        added = outbox.add(url, BODY, RUN)
        clock.forward(86_400)
        for _ in range(3):
            outbox.deliver_due()
            outbox.resend(added.delivery_id)
    assert added.delivery_id in caplog.text
    assert "secret" not in caplog.text
    assert "secret" not in "".join(each.trouble or "" for each in outbox.get(added.delivery_id).attempts)


class TestThreads:
    @pytest.fixture
    def started(self, tmp_path: Path) -> Iterator[Outbox]:
        outbox = Outbox(
            FileWebhookStore(tmp_path / "webhooks"), GuardedClient(may_reach_private=True), OPTIONS
        )
        outbox.open()
        outbox.start()
        yield outbox
        assert outbox.stop(10)

    def test_what_is_added_is_sent_at_once(self, started: Outbox, receiver: Receiver) -> None:
        heard = threading.Event()
        receiver.answers = [lambda _: heard.set() or Answer()]  # type: ignore[func-returns-value]
        added = started.add(receiver.url(), BODY, RUN)
        assert heard.wait(30)
        assert started.stop(30)
        assert started.get(added.delivery_id).status is DeliveryStatus.DELIVERED

    def test_a_server_that_does_not_answer_keeps_nobody(self, started: Outbox, receiver: Receiver) -> None:
        released, heard = threading.Event(), threading.Semaphore(0)
        with receiving() as silent:
            silent.answers = [lambda _: (released.wait(30) and Answer()) or Answer()]
            receiver.answers = [lambda _: heard.release() or Answer()]  # type: ignore[func-returns-value]
            for _ in range(20):
                started.add(silent.url(), BODY, RUN)
            for _ in range(5):
                started.add(receiver.url(), BODY, RUN)
            assert all(heard.acquire(timeout=30) for _ in range(5))
            assert len(silent.heard) <= MOST_AT_ONE_SERVER
            assert not started.stop(0)
            released.set()
            assert started.stop(30)

    def test_after_the_stop_nothing_is_begun(self, started: Outbox, receiver: Receiver) -> None:
        assert started.stop(10)
        added = started.add(receiver.url(), BODY, RUN)
        assert started.deliver_due() == 0
        assert started.get(added.delivery_id).status is DeliveryStatus.WAITING


def test_places_are_shared() -> None:
    row = DeliveryQueue()
    for number in range(30):
        host = "slow" if number < 20 else f"host{number}"
        row.keep(_delivery(number, f"https://{host}.example/"))
    first = row.claim_due(AT)
    assert [each.url for each in first].count("https://slow.example/") == 2
    assert len(first) == 8
    assert row.claim_due(AT) == []
    row.release(after_attempt(first[0], DeliveryAttempt(at=AT, status=500), 86_400))
    assert [each.url for each in row.claim_due(AT)] == ["https://slow.example/"]
    assert row.until_next_s(AT) == 10


def _delivery(number: int, url: str) -> Delivery:
    return new_delivery(url, f"run {number}", 2, AT)
