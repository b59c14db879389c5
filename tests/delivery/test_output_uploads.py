"""Uploads of one run beside those of others: keys that differ, and the later upload to one URL."""

from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.delivery import output_uploads
from comfyui_workflow.delivery.output_uploads import LatestUploads, Superseded, keys_of
from comfyui_workflow.runs.model import OutputFile, Run, RunRequest
from comfyui_workflow.runs.target import AnyInstance
from comfyui_workflow.runs.upload_target import read_upload
from comfyui_workflow.workflows.model import Workflow

AT = datetime(2026, 1, 1, tzinfo=UTC)


def run_with(*outputs: OutputFile) -> Run:
    request = RunRequest(
        target=AnyInstance(),
        workflow=Workflow(graph={}),
        workflow_name="w",
        output_dir="/o",
        comfyui_port=1,
        comfyui_input_dir="/i",
        comfyui_output_dir="/o",
    )
    return Run(run_id="run", request=request, queue_time=AT, last_update=AT, outputs=outputs)


def test_each_output_has_its_own_key() -> None:
    target = read_upload("s3://bucket/p").target
    assert target is not None
    run = run_with(
        OutputFile(filename="a.png", subfolder="video"),
        OutputFile(filename="a.png"),
        OutputFile(filename="a.png", folder="temp"),
        OutputFile(filename="../x.png"),
    )
    assert list(keys_of(run, target).values()) == ["p/run/video/a.png", "p/run/a.png", "p/run/a-2.png"]


def claimed(latest: LatestUploads, run_id: str, stop: CancelToken) -> None:
    with latest.claim("u", run_id, stop) as own:
        own.check()


def test_the_later_upload_stops_the_earlier_one_and_its_retries() -> None:
    latest, stop = LatestUploads(), CancelToken()
    with ThreadPoolExecutor(1) as pool:
        with latest.claim("u", "first", stop) as first:
            first.check()
            second = pool.submit(claimed, latest, "second", stop)
            assert first.wait(30)
            with pytest.raises(Superseded):
                first.check()
            assert not second.done()
        second.result(30)
    with latest.claim("u", "second", stop) as again:
        again.check()
    latest.forget("second")
    with pytest.raises(Superseded), latest.claim("u", "first", stop):
        pass
    latest.forget("first")
    with latest.claim("u", "first", stop) as anew:
        anew.check()


def test_an_abandoned_upload_that_ends_late_leaves_the_later_one_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    latest, stop = LatestUploads(), CancelToken()
    with ThreadPoolExecutor(1) as pool, ExitStack() as abandoned, ExitStack() as later:
        abandoned.enter_context(latest.claim("u", "first", stop))
        with monkeypatch.context() as patch:
            patch.setattr(output_uploads, "ABANDONED_AFTER_S", 0)
            later.enter_context(latest.claim("u", "second", stop))
        abandoned.close()
        third = pool.submit(claimed, latest, "third", stop)
        assert not wait([third], timeout=0.3).done  # the second one is not over
        later.close()
        third.result(30)
