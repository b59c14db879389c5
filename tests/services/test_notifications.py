"""Notifications of the ends of runs and batches: once for each end, also after a crash or on a full disk."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.batch import BatchOrder
from comfyui_workflow.runs.events import RetryRequested, RunCancelled, RunCompleted, RunFailed
from comfyui_workflow.runs.notification import RUN_EVENTS, NotifiedEvent, WebhookOrder
from comfyui_workflow.runs.webhook import Delivery, new_delivery
from comfyui_workflow.services import notifications
from comfyui_workflow.services.batches import BatchService
from comfyui_workflow.services.notifications import RunNotifier, RunNotifierTools
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.stores.files.batches import FileBatchStore
from comfyui_workflow.stores.files.pending import FilePendingStore
from comfyui_workflow.stores.files.runs import FileRunStore
from comfyui_workflow.stores.journal import RunJournal, now
from tests.runs.test_state_machine import GRAPH
from tests.scheduling.making import request
from tests.services.test_batches import Idle

URL = "https://client.example/hook?token=secret"


class Outbox:
    def __init__(self) -> None:
        self.messages: dict[str, dict[str, Any]] = {}
        self.known: list[Delivery] = []
        self.is_full = False

    def add(
        self,
        url: str,
        body: Mapping[str, Any],
        run_id: str,
        delivery_id: str | None = None,
        *,
        message_id: str | None = None,
    ) -> None:
        assert (url, delivery_id) == (URL, message_id)
        if self.is_full:
            raise StoreError("The webhook cannot be saved: No space left on device")
        if message_id not in self.messages:
            self.messages[str(message_id)] = json.loads(json.dumps(body))
            self.known.append(new_delivery(url, run_id, 2, now(), delivery_id))

    def deliveries(self, limit: int, before: str | None = None, run_id: str | None = None) -> list[Delivery]:
        return [each for each in self.known[::-1] if each.run_id == run_id][:limit]

    @property
    def types(self) -> list[str]:
        return [str(message["type"]) for message in self.messages.values()]


class Made:
    """The services on files; `restart` makes them again, as a server that was killed and started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.outbox = Outbox()
        self.restart()

    def restart(self, *, notifies: bool = True) -> None:
        if hasattr(self, "store"):
            self.store.close()
        self.store = FileRunStore(self.directory / "data", None)
        self.store.open()
        files = FileBatchStore(self.directory / "data" / "batches")
        files.open()
        self.pending = FilePendingStore(self.directory / "data" / "notifications")
        self.journal = RunJournal(self.store)
        tools = RunNotifierTools(
            journal=self.journal, store=self.store, batches=files, outbox=self.outbox, pending=self.pending
        )
        self.notifier = RunNotifier(tools)
        if not notifies:  # as if the server were killed at each end of a run
            self.journal._on_finish.clear()
        self.service = RunService(self.journal, self.store, Idle(self.journal))
        self.batches = BatchService(self.journal, self.store, self.service, files)

    def submit(self, *events: NotifiedEvent) -> str:
        order = WebhookOrder(url=URL, events=events or RUN_EVENTS, server_url="http://here:5000")
        return self.service.submit(request(graph=GRAPH, webhook=order)).run_id

    def submit_batch(self, count: int, *, of_runs: tuple[NotifiedEvent, ...] = ()) -> tuple[str, list[str]]:
        order = WebhookOrder(url=URL, events=(NotifiedEvent.BATCH_COMPLETED, *of_runs))
        requests = [request(graph=GRAPH, webhook=order.limited_to(of_runs)) for _ in range(count)]
        batch = self.batches.submit(
            BatchOrder(
                requests=tuple(requests), name="b", webhook=order.limited_to([NotifiedEvent.BATCH_COMPLETED])
            )
        )
        return batch.batch_id, [run.run_id for run in self.batches.runs(batch.batch_id)]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    opened = Made(tmp_path)
    yield opened
    opened.store.close()


@pytest.mark.parametrize(
    ("end", "word"),
    [
        (RunCompleted(), "run.completed"),
        (RunFailed(code="x", message="it broke"), "run.failed"),
        (RunCancelled(), "run.cancelled"),
    ],
)
def test_each_end_of_a_run_has_its_message(made: Made, end: Any, word: str) -> None:
    run_id = made.submit()
    assert made.outbox.types == []
    assert (made.notifier.of_run(made.journal.get(run_id)) or {})["status"] == "expected"
    made.journal.record(run_id, end)
    (message,) = made.outbox.messages.values()
    assert (message["type"], message["workflow_id"]) == (word, run_id)
    assert (message["run"]["status"], message["run"]["workflow_id"]) == (word.partition(".")[2], run_id)
    assert message["outputs_url"] == f"http://here:5000/comfyui/workflow/{run_id}/outputs"
    assert made.pending.all() == []
    document = made.notifier.of_run(made.journal.get(run_id)) or {}
    assert (document["status"], document["url"]) == ("waiting", "https://client.example/hook?…")


def test_an_event_that_was_not_requested_is_not_sent(made: Made) -> None:
    run_id = made.submit(NotifiedEvent.RUN_FAILED)
    made.journal.record(run_id, RunCompleted())
    assert (made.outbox.types, made.pending.all()) == ([], [])
    assert (made.notifier.of_run(made.journal.get(run_id)) or {})["status"] == "not_requested"


def test_a_run_without_a_webhook_writes_nothing(made: Made) -> None:
    run_id = made.service.submit(request(graph=GRAPH)).run_id
    made.journal.record(run_id, RunCompleted())
    assert made.notifier.of_run(made.journal.get(run_id)) is None
    assert not (made.directory / "data" / "notifications").exists()


def test_a_retried_run_is_notified_of_again(made: Made) -> None:
    run_id = made.submit()
    made.journal.record(run_id, RunFailed(code="x", message="it broke"))
    made.journal.record(run_id, RetryRequested())
    assert made.pending.all() == [run_id]
    made.journal.record(run_id, RunCompleted())
    assert made.outbox.types == ["run.failed", "run.completed"]
    assert (made.notifier.of_run(made.journal.get(run_id)) or {})["status"] == "waiting"


def test_a_server_killed_after_the_end_notifies_of_it_after_its_start(made: Made) -> None:
    made.restart(notifies=False)
    ended, unfinished = made.submit(), made.submit()
    made.journal.record(ended, RunCompleted())
    assert made.outbox.types == []
    made.restart()
    made.notifier.resume()
    assert [message["workflow_id"] for message in made.outbox.messages.values()] == [ended]
    assert made.pending.all() == [unfinished]
    made.restart()
    made.notifier.resume()
    made.journal.record(unfinished, RunCompleted())
    assert [message["workflow_id"] for message in made.outbox.messages.values()] == [ended, unfinished]


def test_a_server_killed_before_the_run_was_saved_forgets_it(made: Made) -> None:
    made.pending.add("comfyui_workflow_1700000000_00000abcdef")
    made.pending.add("batch_1700000000_00000abcdef")
    made.notifier.resume()
    assert (made.outbox.types, made.pending.all()) == ([], [])


def test_a_full_disk_delays_the_message(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "AGAIN_AFTER_S", 0.01)
    run_id = made.submit()
    made.outbox.is_full = True
    made.journal.record(run_id, RunCompleted())
    assert made.pending.all() == [run_id]
    made.outbox.is_full = False
    made.notifier._settle(run_id)
    assert (made.outbox.types, made.pending.all()) == (["run.completed"], [])


def test_a_run_whose_notification_cannot_be_saved_is_not_accepted(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(subject_id: str) -> None:
        raise StoreError("The notification cannot be saved: No space left on device")

    monkeypatch.setattr(made.pending, "add", refuse)
    with pytest.raises(StoreError, match="notification cannot be saved"):
        made.submit()
    assert made.store.latest() is None


def test_a_batch_has_one_message_when_all_its_runs_have_ended(made: Made) -> None:
    batch_id, (first, second) = made.submit_batch(2)
    made.journal.record(second, RunFailed(code="x", message="it broke"))
    assert (made.outbox.types, made.pending.all()) == ([], [batch_id])
    assert (made.notifier.of_batch(made.batches.progress(batch_id)) or {})["status"] == "expected"
    made.journal.record(first, RunCompleted())
    (message,) = made.outbox.messages.values()
    assert (message["type"], message["batch_id"]) == ("batch.completed", batch_id)
    assert message["batch"]["counts"] | {"queued": 0} == {
        "queued": 0,
        "executing": 0,
        "completed": 1,
        "failed": 1,
        "cancelled": 0,
    }
    assert made.pending.all() == []
    assert (made.notifier.of_batch(made.batches.progress(batch_id)) or {})["status"] == "waiting"


def test_a_batch_can_notify_of_its_runs_too(made: Made) -> None:
    _, ids = made.submit_batch(2, of_runs=(NotifiedEvent.RUN_FAILED,))
    made.journal.record(ids[0], RunCompleted())
    made.journal.record(ids[1], RunFailed(code="x", message="it broke"))
    assert made.outbox.types == ["run.failed", "batch.completed"]


def test_a_batch_is_notified_of_after_a_crash_without_repeating_its_runs(made: Made) -> None:
    _, ids = made.submit_batch(3, of_runs=RUN_EVENTS)
    made.journal.record(ids[0], RunCompleted())
    made.restart(notifies=False)
    made.journal.record(ids[1], RunCompleted())
    made.restart()
    made.notifier.resume()
    assert made.outbox.types == ["run.completed", "run.completed"]
    made.journal.record(ids[2], RunCancelled())
    assert made.outbox.types == ["run.completed", "run.completed", "run.cancelled", "batch.completed"]
    assert made.pending.all() == []


def test_a_retried_batch_is_notified_of_again(made: Made) -> None:
    batch_id, (run_id,) = made.submit_batch(1)
    made.journal.record(run_id, RunFailed(code="x", message="it broke"))
    made.journal.record(run_id, RetryRequested())
    assert made.pending.all() == [batch_id]
    made.journal.record(run_id, RunCompleted())
    assert made.outbox.types == ["batch.completed", "batch.completed"]


def test_runs_of_a_batch_that_was_not_accepted_are_not_notified_of(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(batch: object) -> None:
        raise StoreError("no space")

    monkeypatch.setattr(made.batches._batches, "add", refuse)
    with pytest.raises(StoreError):
        made.submit_batch(2, of_runs=RUN_EVENTS)
    assert (made.outbox.types, made.pending.all()) == ([], [])
