"""Tests of jobs without a real executor: deadlines, buckets, webhooks, and restart after a crash."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import requests

from comfyui_workflow.api.runpod.documents import error_of
from comfyui_workflow.app import PRESENTERS
from comfyui_workflow.errors import (
    InvalidRequest,
    JobNotFound,
    RunConflict,
    StorageError,
    StorageUnavailable,
    StoreError,
    UrlRefused,
)
from comfyui_workflow.runs.events import (
    AttemptFailed,
    ExecutionEnded,
    ExecutionStarted,
    RunCancelled,
    RunCompleted,
    RunFailed,
)
from comfyui_workflow.runs.job import NOT_DELIVERED, Bucket, ImageDownload, Job, JobOrder, JobStatus
from comfyui_workflow.runs.model import OutputFile, Run
from comfyui_workflow.safe_http.client import Body, GuardedClient, HttpAnswer
from comfyui_workflow.services.jobs import service
from comfyui_workflow.services.jobs.expiry import with_verdict
from comfyui_workflow.services.jobs.finalizer import JobFinalizer
from comfyui_workflow.services.jobs.image_downloads import ImageFetcher
from comfyui_workflow.services.jobs.presenter import Presenters, WebhookMessage
from comfyui_workflow.services.jobs.service import JobService
from comfyui_workflow.services.jobs.view import JobView, output_of
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.storage import s3
from comfyui_workflow.stores.files.jobs import FileJobStore
from comfyui_workflow.stores.journal import RunJournal, now
from comfyui_workflow.stores.memory import MemoryRunStore
from tests.runs.test_state_machine import GRAPH
from tests.scheduling.making import request
from tests.services.test_batches import Idle
from tests.storage.conftest import s3_url as s3_url  # noqa: PLC0414 - a fixture
from tests.storage.s3_server import keys_in, make_bucket

DEADLINE_S = 10.0
USUAL_ORDER = {"endpoint": "any", "presenter": "runpod", "ttl_s": 3600}


class Letters:
    """Outbox that records the webhooks that were added."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.ids: list[str] = []
        self.is_full = False

    def add(
        self, url: str, body: dict[str, Any], run_id: str, delivery_id: str, *, message_id: str | None = None
    ) -> None:
        if self.is_full:
            raise StoreError("no space left")
        self.sent.append((url, body))
        self.ids.append(delivery_id)


class Other:
    """Presenter that sends one webhook per file."""

    def webhook_messages(self, view: JobView, at: datetime) -> Iterator[WebhookMessage]:
        for url, file in product(view.job.webhooks, output_of(view).files):
            yield WebhookMessage(url=url, body={"event": "output.complete", "filename": file.filename})


class Made:
    """Server that can be created again from the same files."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.options = options
        self.store = MemoryRunStore()
        self.letters = Letters()
        self.refused: set[str] = set()
        self.web: dict[str, bytes | StorageError] = {}
        self.fetched: list[str] = []
        self.is_over = threading.Event()
        self.start()

    def start(self) -> None:
        self.journal = RunJournal(self.store)
        self.executor = Idle(self.journal)
        self.service = RunService(self.journal, self.store, self.executor)
        self.files = FileJobStore(self.directory / "jobs")
        self.files.open()
        self.jobs = JobService(
            journal=self.journal,
            service=self.service,
            store=self.files,
            outbox=self.letters,
            presenters=Presenters(
                by_name={**PRESENTERS.by_name, "other": Other()}, unnamed=PRESENTERS.unnamed
            ),
            check_url=self.check_url,
            send=self.send,
            fetch=self.fetch,
            **self.options,
        )
        self.service.resume(held_back=self.jobs.held_back())
        self.jobs.start()

    def check_url(self, url: str) -> None:
        if url in self.refused:
            raise UrlRefused("not there")

    def send(self, method: str, url: str, content: Body, headers: Mapping[str, str]) -> HttpAnswer:
        if any(url.startswith(refused) for refused in self.refused):
            raise UrlRefused("not there")
        return GuardedClient(may_reach_private=True).exchange(method, url, content, headers)

    def fetch(self, url: str, path: Path) -> None:
        self.fetched.append(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        if url.startswith("https://slow.example/"):
            assert self.is_over.wait(DEADLINE_S)
            path.write_bytes(b"late")
            return
        found = self.web[url]
        if isinstance(found, StorageError):
            raise found
        path.write_bytes(found)

    def submit(self, **order: Any) -> str:
        asked = JobOrder(**{**USUAL_ORDER, "request": request(graph=GRAPH), **order})
        return self.jobs.submit(asked).job.job_id

    def job(self, job_id: str) -> Job:
        return self.jobs.get(job_id).job

    def final(self, job_id: str) -> Job:
        until(lambda: self.job(job_id).final)
        return self.job(job_id)

    def complete(self, job_id: str, *contents: bytes) -> None:
        run_id = self.job(job_id).run_id
        outputs = []
        for number, content in enumerate(contents):
            path = self.directory / f"{run_id}-{number}.png"
            path.write_bytes(content)
            outputs.append(OutputFile(filename=f"{number}.png", local_path=str(path)))
        self.store.update(run_id, lambda run: replace(run, outputs=tuple(outputs)))
        self.journal.record(run_id, RunCompleted())


def until(holds: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def is_unknown(made: Made, job_id: str) -> bool:
    try:
        made.jobs.get(job_id)
    except JobNotFound:
        return True
    return False


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Made]]:
    made: list[Made] = []

    def make(**options: Any) -> Made:
        made.append(Made(tmp_path, **options))
        return made[-1]

    yield make
    for each in made:
        each.is_over.set()
        each.jobs.stop()


@pytest.fixture
def made(make: Callable[..., Made]) -> Made:
    return make()


def test_a_job_that_executes_for_too_long_times_out(made: Made) -> None:
    job_id = made.submit(execution_timeout_s=0.2)
    time.sleep(0.3)
    assert made.job(job_id).verdict is None  # the timeout does not count time in the queue
    made.journal.record(job_id, ExecutionStarted())
    assert made.final(job_id).final is JobStatus.TIMEOUT
    assert made.journal.get(job_id).cancel_reason == "The execution timeout of its job is over (0.2 s)"


def test_out_of_contact_no_job_times_out(made: Made) -> None:
    job_id = made.submit(execution_timeout_s=0.2)
    made.journal.record(job_id, ExecutionStarted())
    made.journal.record(job_id, AttemptFailed(message="The connection is cut"))
    time.sleep(0.6)
    assert made.job(job_id).verdict is None
    made.journal.record(job_id, ExecutionEnded(execution_s=0.1))
    made.complete(job_id, b"picture")
    assert made.final(job_id).final is JobStatus.SUCCEEDED


def test_a_job_that_is_met_executing_after_its_time_times_out(made: Made) -> None:
    job_id = made.submit(execution_timeout_s=0.2)
    made.journal.record(job_id, ExecutionStarted())
    made.jobs.stop()
    time.sleep(0.3)
    made.start()
    time.sleep(0.3)
    assert made.job(job_id).verdict is None  # the instance was not asked yet
    made.journal.record(job_id, ExecutionStarted())
    assert made.final(job_id).final is JobStatus.TIMEOUT


def test_what_had_ended_in_time_is_completed_though_nobody_saw_it(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is frozen, but that is not detected yet: the cancellation reaches the instance too
    late."""
    monkeypatch.setattr(made.executor, "recheck", lambda _: None)
    done, failed, cancelled = (made.submit(execution_timeout_s=0.2) for _ in range(3))
    for job_id in (done, failed, cancelled):
        made.journal.record(job_id, ExecutionStarted())
    for job_id in (done, failed, cancelled):
        until(lambda job_id=job_id: made.job(job_id).verdict)  # type: ignore[misc]
        assert made.jobs.get(job_id).status is JobStatus.RUNNING
    assert made.jobs.cancel(cancelled).status is JobStatus.CANCELLED
    for job_id in (done, failed):
        made.journal.record(job_id, ExecutionEnded(execution_s=0.1))
    made.complete(done, b"picture")
    made.journal.record(failed, RunFailed(code="prompt_failed", message="it broke"))
    statuses = [made.final(job_id).final for job_id in (done, failed, cancelled)]
    assert statuses == [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED]
    assert made.job(done).judged_at is None


def test_a_time_out_that_could_not_be_saved_at_once_is_saved_later(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfyui_workflow.services.jobs.expiry.AGAIN_AFTER_S", 0.05)
    cancel, tries = made.service.cancel, list[str]()

    def full_at_first(run_id: str, reason: str | None) -> Run:
        tries.append(run_id)
        if len(tries) == 1:
            raise StoreError("no space left")
        return cancel(run_id, reason)

    monkeypatch.setattr(made.service, "cancel", full_at_first)
    job_id = made.submit(execution_timeout_s=0.1)
    made.journal.record(job_id, ExecutionStarted())
    assert made.final(job_id).final is JobStatus.TIMEOUT
    assert len(tries) == 2


def test_fetching_outputs_is_not_executing(made: Made) -> None:
    job_id = made.submit(execution_timeout_s=0.2)
    made.journal.record(job_id, ExecutionStarted())
    made.journal.record(job_id, ExecutionEnded(execution_s=0.1))
    time.sleep(0.5)
    made.complete(job_id, b"picture")
    assert made.final(job_id).final is JobStatus.SUCCEEDED


def test_in_time_is_in_time(made: Made) -> None:
    job_id = made.submit(execution_timeout_s=1)
    made.journal.record(job_id, ExecutionStarted())
    made.complete(job_id)
    time.sleep(1.2)
    assert made.final(job_id).final is JobStatus.SUCCEEDED


def test_after_its_time_to_live_nobody_knows_a_job(made: Made) -> None:
    done, waiting = made.submit(ttl_s=3), made.submit(ttl_s=0.3)
    made.complete(done)
    until(lambda: is_unknown(made, done) and is_unknown(made, waiting))
    assert made.journal.get(waiting).error_message == "The time to live (ttl) of its job is over"
    assert not list((made.directory / "jobs").iterdir())


def test_a_job_that_cannot_be_saved_is_not_started(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_job: Job) -> None:
        raise StoreError("no space left")

    monkeypatch.setattr(made.files, "add", full)
    with pytest.raises(StoreError):
        made.submit()
    assert not made.executor.started
    assert [run.is_finished for run in made.store.page(10)] == [True]


def test_its_client_is_told_before_it_is_final(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfyui_workflow.services.jobs.finalizer.AGAIN_AFTER_S", 0.05)
    made.letters.is_full = True
    job_id = made.submit(webhooks=("https://c.example/h",))
    made.complete(job_id, b"picture")
    time.sleep(0.2)
    assert made.jobs.get(job_id).status is JobStatus.RUNNING
    made.letters.is_full = False
    made.final(job_id)
    ((url, body),) = made.letters.sent
    assert url == "https://c.example/h"
    assert (body["id"], body["status"]) == (job_id, "COMPLETED")
    assert body["output"]["images"] == [{"filename": "0.png", "type": "base64", "data": "cGljdHVyZQ=="}]


def test_while_it_cannot_be_saved_as_final_its_client_is_told_under_one_id(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfyui_workflow.services.jobs.finalizer.AGAIN_AFTER_S", 0.01)
    failed, cancelled = (made.submit(webhooks=("https://c.example/h",)) for _ in range(2))
    made.files.update(cancelled, lambda job: with_verdict(job, job.run_id, JobStatus.CANCELLED))
    with monkeypatch.context() as patch:
        patch.setattr(FileJobStore, "update", disk_full)
        made.jobs.stop()
        made.start()
        made.journal.record(failed, RunFailed(code="connection_failed", message="x"))
        until(lambda: len(made.letters.ids) > 6)
    for job_id in (failed, cancelled):
        made.final(job_id)
    assert len(set(made.letters.ids)) == 2
    made.jobs.retry(failed)
    made.journal.record(failed, RunFailed(code="connection_failed", message="x"))
    made.final(failed)
    assert len(set(made.letters.ids)) == 3


def test_what_is_too_large_for_a_message_is_named(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfyui_workflow.api.runpod.presenter.LARGEST_MESSAGE_BYTES", 10)
    job_id = made.submit(webhooks=("https://c.example/h",))
    made.complete(job_id, b"small", b"much too large", b"too")
    made.final(job_id)
    output = made.letters.sent[0][1]["output"]
    assert [image["filename"] for image in output["images"]] == ["0.png", "2.png"]
    assert [error.split()[0] for error in output["errors"]] == ["1.png"]


def test_a_job_is_worded_by_the_api_that_ordered_it_also_after_a_restart(made: Made) -> None:
    made.letters.is_full = True
    job_id = made.submit(presenter="other", webhooks=("https://c.example/h",))
    made.complete(job_id, b"first", b"second")
    made.jobs.stop()
    made.letters.is_full = False
    made.start()
    assert made.final(job_id).final is JobStatus.SUCCEEDED
    said = [body for _, body in made.letters.sent]
    assert said == [{"event": "output.complete", "filename": f"{number}.png"} for number in range(2)]
    assert len(set(made.letters.ids)) == 2


def test_the_job_of_an_api_that_is_not_here_ends_without_a_word(
    made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = made.submit(presenter="later", webhooks=("https://c.example/h",))
    made.complete(job_id, b"picture")
    assert made.final(job_id).final is JobStatus.SUCCEEDED
    assert not made.letters.sent
    assert "no API called later" in caplog.text


def test_of_a_cancelled_job_its_client_is_told_at_once(made: Made) -> None:
    job_id = made.submit(webhooks=("https://c.example/h",))
    made.jobs.cancel(job_id)
    made.final(job_id)
    assert [body["status"] for _, body in made.letters.sent] == ["CANCELLED"]


def test_each_webhook_of_a_job_is_sent_once(made: Made) -> None:
    job_id = made.submit(webhooks=("https://c.example/h", "https://c.example/second"))
    made.complete(job_id, b"picture")
    made.final(job_id)
    assert [url for url, _ in made.letters.sent] == ["https://c.example/h", "https://c.example/second"]
    assert made.letters.sent[0][1] == made.letters.sent[1][1]
    assert len(set(made.letters.ids)) == 2


def test_an_invalid_order_fails_also_after_a_crash_before_that_was_saved(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(JobService, "_begin", lambda *_: None)
        job_id = made.submit(refusal="Missing 'workflow' parameter", webhooks=("https://c.example/h",))
    made.jobs.stop()
    made.start()
    assert made.final(job_id).final is JobStatus.FAILED
    assert error_of(made.jobs.get(job_id)) == "Missing 'workflow' parameter"
    assert made.executor.started == []
    assert [body["error"] for _, body in made.letters.sent] == ["Missing 'workflow' parameter"]


def test_an_invalid_order_fails_once_the_disk_takes_it(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "AGAIN_AFTER", timedelta())
    tries = []
    record = made.journal.record

    def record_later(run_id: str, event: Any) -> Run:
        tries.append(event)
        if len(tries) < 3:
            raise StoreError("no space left")
        return record(run_id, event)

    monkeypatch.setattr(made.journal, "record", record_later)
    job_id = made.submit(refusal="Missing 'workflow' parameter")
    assert made.final(job_id).final is JobStatus.FAILED


def test_an_invalid_order_that_is_retried_fails_again(made: Made) -> None:
    job_id = made.submit(refusal="Missing 'workflow' parameter")
    made.final(job_id)
    made.jobs.retry(job_id)
    assert made.final(job_id).retries == 1
    assert made.executor.started == []
    with pytest.raises(RunConflict, match="Send a corrected one"):
        made.service.retry(made.job(job_id).run_id)


def test_urls_that_a_client_may_not_send_us_to_are_refused_when_it_orders(made: Made) -> None:
    made.refused = {"http://10.0.0.1/h"}
    bucket = Bucket(endpoint_url="http://10.0.0.1/h", access_key_id="i", secret_access_key="s")
    for order in ({"webhooks": ("https://c.example/h", "http://10.0.0.1/h")}, {"bucket": bucket}):
        with pytest.raises(InvalidRequest):
            made.submit(**order)
    assert not made.store.page(1)


def test_outputs_are_brought_to_the_bucket_of_the_server(make: Callable[..., Made], s3_url: str) -> None:
    make_bucket(s3_url, "jobs")
    bucket = Bucket(endpoint_url=f"{s3_url}/jobs", access_key_id="i", secret_access_key="s")
    made = make(bucket=bucket)
    job_id = made.submit(is_sync=True, webhooks=("https://c.example/h",))
    made.complete(job_id, b"first", b"second")
    assert made.final(job_id).final is JobStatus.SUCCEEDED
    files = output_of(made.jobs.get(job_id)).files
    assert [requests.get(str(each.url), timeout=10).content for each in files] == [b"first", b"second"]
    keys = keys_in(s3_url, "jobs")
    assert len(keys) == 2
    assert all(key.startswith(f"{job_id}/") and key.endswith(".png") for key in keys)
    assert [image["type"] for image in made.letters.sent[0][1]["output"]["images"]] == ["s3_url"] * 2


def test_outputs_are_brought_to_the_directory_that_the_client_names(made: Made, s3_url: str) -> None:
    make_bucket(s3_url, "jobs")
    bucket = Bucket(
        endpoint_url=f"{s3_url}/jobs",
        access_key_id="i",
        secret_access_key="s",
        object_path="renders/to day",
    )
    job_id = made.submit(bucket=bucket)
    made.complete(job_id, b"first")
    assert made.final(job_id).final is JobStatus.SUCCEEDED
    (file,) = output_of(made.jobs.get(job_id)).files
    assert requests.get(str(file.url), timeout=10).content == b"first"
    assert keys_in(s3_url, "jobs")[0].startswith(f"renders/to day/{job_id}/")


def test_an_upload_that_fails_is_an_error_and_is_made_up_for_by_a_retry(
    make: Callable[..., Made], s3_url: str
) -> None:
    bucket = Bucket(endpoint_url=s3_url, access_key_id="i", secret_access_key="s", bucket_name="later")
    made = make()
    job_id = made.submit(bucket=bucket)
    made.complete(job_id, b"picture")
    job = made.final(job_id)
    assert job.final is JobStatus.FAILED
    assert job.error_code == NOT_DELIVERED
    assert error_of(made.jobs.get(job_id)) == f"Job processing failed: {job.error}"
    assert not output_of(made.jobs.get(job_id)).files
    make_bucket(s3_url, "later")
    made.jobs.retry(job_id)
    until(lambda: made.job(job_id).final is JobStatus.SUCCEEDED)
    assert made.executor.started == [job_id]  # nothing was executed again
    assert made.job(job_id).bucket is None  # its secret is removed
    assert len(keys_in(s3_url, "later")) == 1


def test_one_upload_that_fails_of_two_is_named(
    make: Callable[..., Made], s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bucket(s3_url, "two")
    bucket = Bucket(endpoint_url=f"{s3_url}/two", access_key_id="i", secret_access_key="s")
    put = s3.S3Storage.put

    def broken(storage: s3.S3Storage, path: Path, key: str, content_type: str) -> str:
        if path.read_bytes() == b"bad":
            raise s3.StorageError("bad is bad")
        return put(storage, path, key, content_type)

    monkeypatch.setattr(s3.S3Storage, "put", broken)
    made = make(bucket=bucket)
    job_id = made.submit()
    made.complete(job_id, b"good", b"bad")
    assert made.final(job_id).final is JobStatus.SUCCEEDED
    output = output_of(made.jobs.get(job_id))
    assert ([each.filename for each in output.files], output.errors) == (["0.png"], ("bad is bad",))


def test_a_bucket_that_leads_elsewhere_by_now_gets_nothing(made: Made, s3_url: str) -> None:
    make_bucket(s3_url, "private")
    bucket = Bucket(endpoint_url=f"{s3_url}/private", access_key_id="i", secret_access_key="s")
    job_id = made.submit(bucket=bucket)
    made.refused = {bucket.endpoint_url}
    made.complete(job_id, b"picture")
    assert made.final(job_id).final is JobStatus.FAILED
    assert keys_in(s3_url, "private") == []


def test_a_restart_loses_no_job_and_no_ending(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = made.submit(execution_timeout_s=30)
    with monkeypatch.context() as patch:
        patch.setattr(JobFinalizer, "put", lambda self, job_id: None)  # the server crashes before that
        ended, timed_out = made.submit(webhooks=("https://c.example/h",)), made.submit()
        made.complete(ended, b"picture")
        made.files.update(timed_out, lambda job: replace(job, verdict=JobStatus.TIMEOUT))
    made.jobs.stop()
    made.start()
    assert made.final(ended).final is JobStatus.SUCCEEDED
    assert len(made.letters.sent) == 1
    assert made.final(timed_out).final is JobStatus.TIMEOUT
    assert made.journal.get(timed_out).is_cancel_requested
    assert made.jobs.get(waiting).status is JobStatus.QUEUED
    assert made.job(waiting).execution_timeout_s == 30


def test_a_run_waits_for_images_from_the_web(made: Made) -> None:
    path = made.directory / "uploads" / "1" / "a.png"
    made.web["https://w.example/a"] = b"picture"
    job_id = made.submit(fetches=(ImageDownload(url="https://w.example/a", path=str(path)),))
    until(lambda: made.executor.started == [job_id])
    assert path.read_bytes() == b"picture"
    assert not made.job(job_id).fetches


def test_an_image_that_does_not_come_is_tried_again_and_then_fails_its_job(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfyui_workflow.services.jobs.image_downloads.WAIT_S", 0.01)
    slow, missing = "https://w.example/a", "https://w.example/b"
    made.web = {slow: StorageUnavailable("took too long"), missing: StorageError("404")}
    for url, tries in ((slow, 4), (missing, 1)):
        job_id = made.submit(fetches=(ImageDownload(url=url, path=str(made.directory / "a.png")),))
        assert made.final(job_id).final is JobStatus.FAILED
        assert made.journal.get(job_id).error_code == "image_not_fetched"
        with pytest.raises(RunConflict, match="Retry its job"):
            made.service.retry(job_id)  # the run alone has no images
        assert made.fetched.count(url) == tries
        made.web[url] = b"picture"
        made.jobs.retry(job_id)
        until(lambda job_id=job_id: made.executor.started[-1:] == [made.job(job_id).run_id])  # type: ignore[misc]


def test_a_purge_takes_none_that_has_begun_and_counts_each_once(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just before the first purge cancels a run, one run begins and another request purges."""
    monkeypatch.setattr(ImageFetcher, "put", lambda self, job: None)
    waiting, begun = made.submit(), made.submit()
    fetching = made.submit(fetches=(ImageDownload(url="https://w.example/a", path="/nowhere"),))
    cancel, others = made.service.cancel_if_queued, list[int]()

    def late(run_id: str) -> bool:
        if not others:
            others.append(0)
            made.journal.record(begun, ExecutionStarted())
            others.append(made.jobs.purge("any"))
        return cancel(run_id)

    made.jobs.purge("other")
    monkeypatch.setattr(made.service, "cancel_if_queued", late)
    assert made.jobs.purge("any") == 0
    assert others == [0, 2]
    assert [made.final(job_id).final for job_id in (waiting, fetching)] == [JobStatus.CANCELLED] * 2
    assert made.job(begun).verdict is None
    assert not made.journal.get(begun).is_cancel_requested


@pytest.mark.parametrize("code", ["prompt_failed", "connection_failed"])
def test_of_retries_at_the_same_time_one_wins(made: Made, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """The second retry arrives during the first one, in both variants of a retry."""
    job_id = made.submit()
    made.journal.record(job_id, RunFailed(code=code, message="x"))
    made.final(job_id)
    refused: list[str] = []
    second = threading.Thread(target=lambda: retry_refused(made, job_id, refused))

    def meanwhile(method: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def called(argument: Any) -> Any:
            if second.ident is None:
                second.start()
                second.join(0.3)
            return method(argument)

        return called

    for name in ("save_all", "retry"):
        monkeypatch.setattr(made.service, name, meanwhile(getattr(made.service, name)))
    made.jobs.retry(job_id)
    second.join(DEADLINE_S)
    assert refused == ["Only a job that has failed or timed out can be retried: this one is queued"]
    assert len(made.executor.started) == 2
    assert made.job(job_id).retries == 1


def retry_refused(made: Made, job_id: str, refused: list[str]) -> None:
    try:
        made.jobs.retry(job_id)
    except RunConflict as error:
        refused.append(str(error))


def test_a_job_whose_run_is_taken_up_as_one_goes_on_with_it(made: Made) -> None:
    job_id = made.submit(webhooks=("https://c.example/h",))
    made.journal.record(job_id, RunFailed(code="connection_failed", message="x"))
    made.final(job_id)
    made.service.retry(job_id)
    assert made.jobs.get(job_id).status is JobStatus.QUEUED
    refused: list[str] = []
    retry_refused(made, job_id, refused)
    assert len(refused) == 1
    assert made.executor.started == [job_id] * 2
    made.jobs.cancel(job_id)
    assert made.final(job_id).final is JobStatus.CANCELLED
    assert made.journal.get(job_id).is_cancel_requested
    assert [body["status"] for _, body in made.letters.sent] == ["FAILED", "CANCELLED"]


def test_a_job_follows_its_run_though_that_could_not_be_saved_at_once(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = made.submit()
    made.journal.record(job_id, RunFailed(code="connection_failed", message="x"))
    made.final(job_id)
    with monkeypatch.context() as patch:
        patch.setattr(FileJobStore, "update", disk_full)
        made.service.retry(job_id)
    made.jobs.stop()
    made.start()
    assert made.jobs.get(job_id).status is JobStatus.QUEUED
    made.complete(job_id)
    assert made.final(job_id).final is JobStatus.SUCCEEDED


def disk_full(*_: object) -> Job:
    raise StoreError("no space left")


def test_a_slow_server_of_images_keeps_no_others_waiting(made: Made) -> None:
    def ordered(url: str, number: int = 0) -> str:
        path = made.directory / f"{number}.png"
        return made.submit(fetches=(ImageDownload(url=url, path=str(path)),))

    slow = [ordered(f"https://slow.example/{number}", number) for number in range(20)]
    made.web["https://w.example/a"] = b"picture"
    quick = ordered("https://w.example/a", 99)
    until(lambda: made.executor.started == [quick])
    assert len(made.fetched) == 3
    made.is_over.set()
    until(lambda: sorted(made.executor.started) == sorted([*slow, quick]))


def test_images_of_one_job_come_one_after_another_from_wherever(made: Made) -> None:
    urls = ["https://w.example/a", "https://other.example/b", "https://w.example/c"]
    made.web = {url: url.encode() for url in urls}
    paths = [made.directory / url[-1] for url in urls]
    fetches = [ImageDownload(url=url, path=str(path)) for url, path in zip(urls, paths, strict=True)]
    job_id = made.submit(fetches=tuple(fetches))
    until(lambda: made.executor.started == [job_id])
    assert (made.fetched, [path.read_bytes().decode() for path in paths]) == (urls, urls)


def test_images_are_fetched_after_a_restart_and_their_run_is_held_back(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ImageFetcher, "put", lambda self, job: None)  # the server crashes before that
        path = str(made.directory / "a.png")
        job_id = made.submit(fetches=(ImageDownload(url="https://w.example/a", path=path),))
    made.jobs.stop()
    made.web["https://w.example/a"] = b"picture"
    made.start()
    until(lambda: made.executor.started == [job_id])
    assert made.fetched == ["https://w.example/a"]


def test_who_waits_for_an_image_can_be_cancelled(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ImageFetcher, "put", lambda self, job: None)
        job_id = made.submit(fetches=(ImageDownload(url="https://w.example/a", path="/nowhere"),))
        assert made.jobs.held_back() == {job_id}
    made.jobs.cancel(job_id)
    assert made.final(job_id).final is JobStatus.CANCELLED
    assert made.journal.get(job_id).is_finished


def test_records_of_jobs_are_private_and_what_cannot_be_read_is_left_alone(made: Made) -> None:
    job_id = made.submit()
    path = made.directory / "jobs" / f"{job_id}.json"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("{")
    made.jobs.stop()
    made.start()
    assert is_unknown(made, job_id)
    assert path.read_text() == "{"


def test_after_each_job_its_run_is_told(make: Callable[..., Made]) -> None:
    told: list[Run] = []
    made = make(refresh=told.append)
    for end in (RunCompleted(), RunFailed(code="x", message="x"), RunCancelled()):
        job_id = made.submit()
        made.journal.record(job_id, end)
        until(lambda job_id=job_id: told and told[-1].run_id == job_id)  # type: ignore[misc]


def test_who_waits_is_answered_when_the_server_stops(made: Made) -> None:
    job_id = made.submit()
    made.jobs.stop()
    began = now()
    assert made.jobs.wait(job_id, 60).status is JobStatus.QUEUED
    assert now() - began < timedelta(seconds=5)
