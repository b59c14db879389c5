"""Live progress of a run over HTTP: previews and transfers."""

from typing import Any

import pytest

from comfyui_workflow.comfyui.previews import Preview, PreviewSource
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.execution.live_progress import Direction, LiveRun
from comfyui_workflow.runs.events import RunCompleted
from tests.api.conftest import Api
from tests.api.test_workflow import GRAPH, execute

PICTURE = b"\xff\xd8\xff\xe0 a picture"


def get(api: Api, path: str, **headers: str) -> Any:
    return api.client.get(f"/comfyui/workflow{path}", headers=headers)


def show(live: LiveRun, picture: bytes = PICTURE) -> None:
    place = PreviewSource(prompt_id="p", node_id="3")
    live.show(Preview(place=place, content_type="image/jpeg", picture=picture))


def test_the_latest_preview_of_a_run(api: Api) -> None:
    run_id = execute(api, workflow=GRAPH).json["workflow_id"]
    with api.live_view.open(run_id) as live:
        show(live, b"\xff\xd8\xff an older one")
        show(live)
        (line,) = get(api, "").json["workflows"]
        for told in (
            get(api, f"/{run_id}/progress").json["progress"],
            get(api, "/state").json["state"],
            line,
        ):
            assert told["live_preview"] == {"number": 2, "node_id": "3", "content_type": "image/jpeg"}
        answer = get(api, f"/{run_id}/live-preview")
        assert (answer.status_code, answer.data, answer.mimetype) == (200, PICTURE, "image/jpeg")
        assert answer.headers["Cache-Control"] == "private, no-cache"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
        known = {"If-None-Match": answer.headers["ETag"]}
        again = get(api, f"/{run_id}/live-preview", **known)
        assert (again.status_code, again.data) == (304, b"")
        show(live, PICTURE + b" and a next one")
        assert get(api, f"/{run_id}/live-preview", **known).status_code == 200
    assert get(api, f"/{run_id}/progress").json["progress"]["live_preview"] is None
    assert get(api, f"/{run_id}/live-preview").status_code == 204


def test_a_finished_run_shows_nothing_even_while_it_is_put_away(api: Api) -> None:
    run_id = execute(api, workflow=GRAPH).json["workflow_id"]
    with api.live_view.open(run_id) as live, live.transfer(Direction.DOWNLOAD, "a.png", CancelToken()):
        show(live)
        api.journal.record(run_id, RunCompleted())
        progress = get(api, f"/{run_id}/progress").json["progress"]
        assert (progress["live_preview"], progress["transfers"]) == (None, [])
        assert get(api, "").json["workflows"][0]["live_preview"] is None
        assert get(api, f"/{run_id}/live-preview").status_code == 204


def test_there_may_be_none(api: Api) -> None:
    there = execute(api, workflow=GRAPH).json["workflow_id"]
    answer = get(api, f"/{there}/live-preview")
    assert (answer.status_code, answer.data) == (204, b"")


@pytest.mark.parametrize(("run_id", "code"), [("nobody", "run_not_found"), ("..%2F..%2Fetc", "http")])
def test_there_may_be_no_such_run(api: Api, run_id: str, code: str) -> None:
    answer = get(api, f"/{run_id}/live-preview")
    assert (answer.status_code, answer.json["code"]) == (404, code)


def test_files_on_their_way(api: Api) -> None:
    run_id = execute(api, workflow=GRAPH).json["workflow_id"]
    assert get(api, f"/{run_id}/progress").json["progress"]["transfers"] == []
    with (
        api.live_view.open(run_id) as live,
        live.transfer(Direction.UPLOAD, "a <b>.png", CancelToken()) as report,
    ):
        report(3, 9)
        (shown,) = get(api, f"/{run_id}/progress").json["progress"]["transfers"]
    assert shown == {"direction": "upload", "filename": "a <b>.png", "done_bytes": 3, "total_bytes": 9}
    assert get(api, f"/{run_id}/progress").json["progress"]["transfers"] == []
