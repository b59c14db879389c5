"""Contract of a store of jobs, for every implementation."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from comfyui_workflow.errors import JobNotFound
from comfyui_workflow.runs.job import Bucket, ImageDownload, Job, JobStatus, Upload
from comfyui_workflow.stores.base import JobStore
from comfyui_workflow.stores.files.jobs import FileJobStore
from comfyui_workflow.stores.memory import MemoryJobStore
from tests.runs.test_state_machine import AT

Start = Callable[[], JobStore]


@pytest.fixture(params=["memory", "files"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Each call makes a new store on the same records, as after a restart."""
    memory = MemoryJobStore()

    def started() -> JobStore:
        store: JobStore = memory if request.param == "memory" else FileJobStore(tmp_path / "jobs")
        store.open()
        return store

    return started


def job(number: int, prefix: str = "") -> Job:
    run_id = f"comfyui_workflow_170000000{number}_00abc"
    return Job(
        job_id=prefix + run_id,
        run_id=run_id,
        endpoint="any",
        created_at=AT,
        expires_at=AT + timedelta(days=1),
        webhook="https://a.example/hook",
        bucket=Bucket(endpoint_url="https://s3.example", access_key_id="id", secret_access_key="key"),
        fetches=(ImageDownload(url="https://a.example/cat.png", path="/in/cat.png"),),
        uploads=(Upload(number=0, error="refused"),),
    )


def test_what_was_added_is_there_now_and_after_a_restart(start: Start) -> None:
    store = start()
    assert store.all() == []
    store.add(job(1))
    store.add(job(2, "sync-"))
    for each in (store, start()):
        assert each.all() == [job(1), job(2, "sync-")]
        assert each.of_run(job(1).run_id) == job(1)
        assert each.of_run("comfyui_workflow_1_ff") is None
        with pytest.raises(JobNotFound, match="nothing"):
            each.get("nothing")


@pytest.mark.parametrize("prefix", ["", "sync-"])
def test_a_job_is_found_with_and_without_the_prefix_of_synchronous_ones(start: Start, prefix: str) -> None:
    store = start()
    store.add(job(1, prefix))
    for job_id in (job(1).job_id, job(1, "sync-").job_id):
        assert store.get(job_id) == job(1, prefix)


def test_a_change_is_there_after_a_restart(start: Start) -> None:
    store = start()
    store.add(job(1))
    changed = replace(job(1), verdict=JobStatus.CANCELLED, judged_at=AT)
    assert store.update(job(1).job_id, lambda _: changed) == changed
    assert store.get(job(1).job_id) == start().get(job(1).job_id) == changed
    with pytest.raises(JobNotFound):
        store.update("nothing", lambda job: job)


def test_a_change_that_raises_changes_nothing(start: Start) -> None:
    store = start()
    store.add(job(1))

    def refuse(_: Job) -> Job:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.update(job(1).job_id, refuse)
    assert store.get(job(1).job_id) == job(1)


def test_a_job_that_another_run_carries_out_is_found_by_that_one(start: Start) -> None:
    store = start()
    store.add(job(1))
    moved = store.update(job(1).job_id, lambda job: replace(job, run_id="comfyui_workflow_1800000000_00abc"))
    for each in (store, start()):
        assert each.of_run(moved.run_id) == moved
        assert each.of_run(job(1).run_id) is None


def test_changes_from_many_threads_are_all_kept(start: Start) -> None:
    store = start()
    store.add(job(1))

    def count_up() -> None:
        for _ in range(25):
            store.update(job(1).job_id, lambda job: replace(job, retries=job.retries + 1))

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get(job(1).job_id).retries == start().get(job(1).job_id).retries == 100


def test_what_was_removed_is_gone(start: Start) -> None:
    store = start()
    for number in (1, 2):
        store.add(job(number))
    for _ in range(2):
        store.remove(job(1).job_id)
    for each in (store, start()):
        assert each.all() == [job(2)]
        assert each.of_run(job(1).run_id) is None


def test_a_job_that_was_made_again_is_as_good_as_any(start: Start) -> None:
    store = start()
    assert dict(store.unreadable) == {}
    store.replace_unreadable(job(1))
    assert store.get(job(1).job_id) == start().get(job(1).job_id) == job(1)
