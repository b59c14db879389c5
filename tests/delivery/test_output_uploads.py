"""Uploads of one run beside those of others: keys that differ, and the later upload to one URL."""

from datetime import UTC, datetime

import pytest

from comfyui_workflow.concurrency import CancelToken
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


def test_the_later_upload_stops_the_earlier_one_and_its_retries() -> None:
    latest, stop = LatestUploads(), CancelToken()
    with latest.claim("u", "first", stop) as first:
        first.check()
        with latest.claim("u", "second", stop) as second:
            with pytest.raises(Superseded):
                first.check()
            second.check()
    with latest.claim("u", "second", stop) as again:
        again.check()
    latest.forget("second")
    with pytest.raises(Superseded), latest.claim("u", "first", stop):
        pass
    latest.forget("first")
    with latest.claim("u", "first", stop) as anew:
        anew.check()
