"""The files in the webhooks of comfyui-api: of limited size, since a message is in memory as a whole."""

from dataclasses import replace
from pathlib import Path

import pytest

from comfyui_workflow.api.comfyui_api import presenter
from comfyui_workflow.api.comfyui_api.presenter import ComfyUIApiPresenter
from comfyui_workflow.runs.job import JobStatus
from comfyui_workflow.runs.model import FileType, OutputFile
from comfyui_workflow.services.jobs.view import JobView
from tests.api.conftest import Api
from tests.api.test_comfyui_api import HOOK, submit

TOO_LARGE = "large.png is too large to be sent along: GET /prompt/x has it"


def finished(api: Api, directory: Path, field: str) -> JobView:
    run_id = submit(api, "x", **{"webhook": "", field: HOOK})
    outputs = []
    for name, size in (("small.png", 2), ("large.png", 50)):
        path = directory / name
        path.write_bytes(b"x" * size)
        outputs.append(OutputFile(filename=name, node_id="2", file_type=FileType.IMAGE, local_path=str(path)))
    view = api.jobs.get(run_id)
    run = replace(view.run, outputs=tuple(outputs))
    return JobView(job=replace(view.job, final=JobStatus.SUCCEEDED), run=run)


def test_a_message_with_all_files_has_a_maximum_size(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = finished(api, tmp_path, "webhook_v2")
    monkeypatch.setattr(presenter, "LARGEST_MESSAGE_BYTES", 10)
    (message,) = ComfyUIApiPresenter().webhook_messages(view, view.run.last_update)
    assert message.body["images"] == ["eHg=", ""]
    assert message.body["errors"] == [TOO_LARGE]


def test_a_message_of_one_file_has_a_maximum_size(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = finished(api, tmp_path, "webhook")
    monkeypatch.setattr(presenter, "LARGEST_MESSAGE_BYTES", 10)
    small, large = ComfyUIApiPresenter().webhook_messages(view, view.run.last_update)
    assert (small.body["image"], "errors" in small.body) == ("eHg=", False)
    assert (large.body["image"], large.body["errors"]) == ("", [TOO_LARGE])
