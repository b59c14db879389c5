"""The native API over HTTP: accepted and refused requests, and the error messages."""

import io
import json
import os
import re
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfyui_workflow.runs import events
from comfyui_workflow.runs.model import FileType, OutputFile, Placement
from comfyui_workflow.runs.target import target_of_record
from tests.api.conftest import Api

GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Photo"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
SSH = "ssh -p 40738 root@198.51.100.194"
ROUTES = ["execute", "x/progress", "x/cancel", "x/outputs", "state", "x/active"]


@pytest.fixture
def workflow_file(tmp_path: Path) -> str:
    path = tmp_path / "my flow.json"
    path.write_text(json.dumps(GRAPH))
    return str(path)


def execute(api: Api, **body: Any) -> Any:
    return api.client.post("/comfyui/workflow/execute", json={"ssh_connection": SSH, **body})


def test_execute_answers_in_the_words_of_the_specification(api: Api, workflow_file: str) -> None:
    answer = execute(api, workflow_file=workflow_file)
    assert answer.status_code == 200
    run_id = answer.json["workflow_id"]
    assert answer.json == {
        "success": True,
        "workflow_id": run_id,
        "message": "Workflow execution started",
    }
    assert re.fullmatch(r"comfyui_workflow_\d{10}_[0-9a-f]+", run_id)
    assert api.executor.started == [run_id]
    request = api.journal.get(run_id).request
    assert (request.workflow_name, request.comfyui_port) == ("my flow.json", 18188)
    assert (request.output_dir, request.input_images) == ("/tmp/comfyui_outputs", ())
    assert request.comfyui_input_dir == "/workspace/ComfyUI/input"
    assert request.comfyui_output_dir == "/workspace/ComfyUI/output"


def test_progress_has_every_field_of_the_specification(api: Api, workflow_file: str) -> None:
    run_id = execute(api, workflow_file=workflow_file, workflow_name="Enhance").json["workflow_id"]
    progress = api.client.get(f"/comfyui/workflow/{run_id}/progress").json["progress"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", progress["queue_time"])
    expected = {
        "workflow_id": run_id,
        "workflow_name": "Enhance",
        "prompt_id": None,
        "ssh_connection": SSH,
        "workflow_file": workflow_file,
        "status": "queued",
        "queue_position": None,
        "current_node": None,
        "total_nodes": 2,
        "completed_nodes": 0,
        "progress_percent": 0.0,
        "start_time": None,
        "end_time": None,
        "outputs": [],
        "error_message": None,
        "failed_node": None,
    }
    assert {name: progress[name] for name in expected} == expected
    assert progress["nodes"][0] == {
        "node_id": "1",
        "node_type": "LoadImage",
        "title": "Photo",
        "status": "pending",
        "progress": 0.0,
        "message": None,
        "start_time": None,
        "end_time": None,
    }
    assert api.client.get("/comfyui/workflow/state").json == {"success": True, "state": progress}


def test_the_port_comes_from_the_request_then_the_ssh_string_then_the_default(api: Api) -> None:
    string = SSH + " -L 8080:localhost:8188"
    ports = []
    for body in ({}, {"ssh_connection": string}, {"ssh_connection": string, "comfyui_port": 9000}):
        run_id = execute(api, workflow=GRAPH, **body).json["workflow_id"]
        ports.append(api.journal.get(run_id).request.comfyui_port)
    assert ports == [18188, 8188, 9000]


def listed(api: Api, query: str) -> tuple[list[str], int]:
    answer = api.client.get(f"/comfyui/workflow?{query}").json
    return [run["workflow_name"] for run in answer["workflows"]], answer["total"]


def test_runs_are_listed_as_asked(api: Api) -> None:
    oldest = execute(api, workflow=GRAPH, workflow_name="a cat").json["workflow_id"]
    request = api.journal.get(oldest).request
    middle, newest = (
        api.service.submit(replace(request, workflow_name=name, target=target_of_record(connection))).run_id
        for name, connection in (("a Dog", "gpu-1"), ("two dogs", SSH))
    )
    api.journal.record(oldest, events.RunFailed(code="prompt_failed", message="no"))
    api.journal.record(middle, events.RunCancelled())
    assert listed(api, "") == (["two dogs", "a Dog", "a cat"], 3)
    assert listed(api, "name=dog") == (["two dogs", "a Dog"], 2)
    assert listed(api, "name=dog&limit=1") == (["two dogs"], 2)
    assert listed(api, f"name=dog&before={newest}") == (["a Dog"], 2)
    assert listed(api, "status=failed,cancelled") == (["a Dog", "a cat"], 2)
    assert listed(api, "status=completed") == ([], 0)
    assert listed(api, "instance=GPU-1&batch=") == (["a Dog"], 1)
    assert listed(api, "batch=b") == ([], 0)
    assert api.client.get("/comfyui/workflow?name=dog&limit=1").json["next"] == newest
    assert api.client.get("/comfyui/workflow?name=dog&limit=3").json["next"] is None


@pytest.mark.parametrize("status", ["faild", "failed,", "Failed", "failed;queued", ","])
def test_a_status_that_there_is_not_is_refused(api: Api, status: str) -> None:
    answer = api.client.get("/comfyui/workflow", query_string={"status": status})
    assert answer.status_code == 400
    assert answer.json["message"].startswith("status must be one or several of queued, executing, completed")


def test_a_line_of_the_list_tells_where_a_run_is_and_what_it_costs(api: Api) -> None:
    run_id = execute(api, workflow=GRAPH, workflow_name="Enhance").json["workflow_id"]
    placement = Placement(
        instance_id="i-1",
        name="gpu-1",
        ssh_connection=SSH,
        comfyui_port=1,
        comfyui_input_dir="/i",
        comfyui_output_dir="/o",
        price_per_hour=3600.0,
        reason="the only one",
    )
    api.journal.record(run_id, events.InstanceChosen(placement=placement))
    api.journal.record(run_id, events.ExecutionStarted())
    api.journal.record(run_id, events.ExecutionEnded(execution_s=2.5))
    api.journal.record(run_id, events.RunFailed(code="prompt_failed", message="x" * 5000, node_id="2"))
    (line,) = api.client.get("/comfyui/workflow").json["workflows"]
    expected = {"instance": "gpu-1", "instance_id": "i-1", "gpu_seconds": 2.5, "cost": 2.5, "priority": 0}
    assert expected.items() <= line.items()
    assert len(line["error_message"]) == 300
    progress = api.client.get(f"/comfyui/workflow/{run_id}/progress").json["progress"]
    assert progress["instance_reason"] == "the only one"
    assert progress["error_message"] == "x" * 5000
    short = {**line, "error_message": progress["error_message"]}
    assert short.pop("output_count") == 0
    assert short.items() <= progress.items()


def test_state_is_null_before_the_first_run(api: Api) -> None:
    assert api.client.get("/comfyui/workflow/state").json == {"success": True, "state": None}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "Request body is required"),
        ({"workflow_file": "/x"}, "ssh_connection is required"),
        ({"ssh_connection": "", "workflow_file": "/x"}, "ssh_connection is required"),
        ({"ssh_connection": SSH}, "workflow_file is required"),
        (
            {"ssh_connection": SSH, "workflow_file": "/nowhere/w.json"},
            "Workflow file not found: /nowhere/w.json",
        ),
        ({"ssh_connection": SSH, "workflow_file": "/tmp"}, "Workflow file is not a file: /tmp"),
        ({"ssh_connection": SSH, "workflow_file": "a\0b"}, "Workflow file not found"),
        ({"ssh_connection": SSH, "workflow_file": 5}, "workflow_file must be a text"),
        ({"ssh_connection": ["a"], "workflow": GRAPH}, "ssh_connection must be a text"),
        ({"ssh_connection": "ssh host; rm -rf /", "workflow": GRAPH}, ";"),
        ({"ssh_connection": "ssh -o ProxyCommand=x host", "workflow": GRAPH}, "ProxyCommand"),
        ({"ssh_connection": SSH, "workflow": [1]}, "a list"),
        ({"ssh_connection": SSH, "workflow": {"nodes": [], "links": []}}, "no nodes that run"),
        ({"ssh_connection": SSH, "workflow": {"nodes": [3], "links": []}}, "editor"),
        (
            {"ssh_connection": SSH, "workflow": {"1": {"class_type": "X", "inputs": {"a": ["9", 0]}}}},
            "node 9",
        ),
        ({"ssh_connection": SSH, "workflow": GRAPH, "workflow_file": "/x"}, "not both"),
        ({"ssh_connection": SSH, "workflow": GRAPH, "input_images": "a.png"}, "must be a list of file paths"),
        ({"ssh_connection": SSH, "workflow": GRAPH, "input_images": [1]}, "must be a list of file paths"),
        (
            {"ssh_connection": SSH, "workflow": GRAPH, "input_images": ["/no/a.png"]},
            "Input image not found: /no/a",
        ),
        ({"ssh_connection": SSH, "workflow": GRAPH, "comfyui_port": "8188"}, "whole number from 1 to 65535"),
        ({"ssh_connection": SSH, "workflow": GRAPH, "comfyui_port": 0}, "whole number from 1 to 65535"),
        ({"ssh_connection": SSH, "workflow": GRAPH, "comfyui_port": True}, "whole number from 1 to 65535"),
        ({"ssh_connection": SSH, "workflow": GRAPH, "output_dir": {}}, "output_dir must be a text"),
        (
            {"ssh_connection": SSH, "workflow": GRAPH, "output_dir": "/etc/passwd"},
            "Output directory is a file",
        ),
        ({"ssh_connection": SSH, "workflow": GRAPH, "comfyui_input_dir": "relative"}, "absolute path"),
        ({"ssh_connection": SSH, "workflow": GRAPH, "comfyui_output_dir": "/a\nb"}, "absolute path"),
        ({"ssh_connection": SSH, "workflow": GRAPH, "include_previews": "yes"}, "true or false"),
        ({"ssh_connection": SSH, "workflow": GRAPH, "workflow_name": []}, "workflow_name must be a text"),
        ({"ssh_connection": SSH, "workflow": GRAPH, "workflow_name": "\ud800"}, "not valid Unicode"),
        ({"ssh_connection": SSH, "workflow_file": "/tmp/\udfff.json"}, "not valid Unicode"),
        (
            {"ssh_connection": SSH, "workflow": GRAPH, "input_images": ["/tmp/\ud800.png"]},
            "list of file paths",
        ),
        ({"ssh_connection": SSH, "workflow": {"1": {"class_type": "\ud800"}}}, "not valid Unicode"),
        (
            {"ssh_connection": SSH, "workflow": {"1": {"class_type": "X", "inputs": {"a": float("nan")}}}},
            "NaN",
        ),
        (
            {"ssh_connection": SSH, "workflow": {"1": {"class_type": "X", "inputs": {"a": float("inf")}}}},
            "NaN",
        ),
    ],
)
def test_a_bad_request_gets_a_sentence_and_starts_nothing(api: Api, body: Any, message: str) -> None:
    answer = api.client.post("/comfyui/workflow/execute", json=body)
    assert answer.status_code == 400
    assert answer.json["success"] is False
    assert message in answer.json["message"]
    assert api.executor.started == []
    assert api.client.get("/comfyui/workflow").json["workflows"] == []


@pytest.mark.parametrize(
    ("data", "content_type", "message"),
    [
        (b"", "application/json", "Request body is required"),
        (b"{", "application/json", "not valid JSON"),
        (b"\xff", "application/json", "not valid JSON: byte 1 (0xFF) is not UTF-8"),
        (b"{'a': 1}", "application/json", "not valid JSON: expecting property name"),
        (b"[]", "application/json", "must be a JSON object"),
        (b"null", "application/json", "not valid JSON"),
        (b"[" * 200_000, "application/json", "not valid JSON"),
        (b'{"workflow": ' * 100_000, "application/json", "not valid JSON"),
        (b'{"a": 1}', "text/plain", "Content-Type must be application/json"),
        (b"a=1", "application/x-www-form-urlencoded", "Content-Type must be application/json"),
    ],
)
def test_a_body_that_is_no_json_object(api: Api, data: bytes, content_type: str, message: str) -> None:
    answer = api.client.post("/comfyui/workflow/execute", data=data, content_type=content_type)
    assert (answer.status_code, answer.json["success"]) == (400, False)
    assert message in answer.json["message"]


def test_a_body_has_the_encoding_that_it_names(api: Api) -> None:
    order = {"ssh_connection": SSH, "workflow": GRAPH, "workflow_name": "für"}
    answer = api.client.post(
        "/comfyui/workflow/execute",
        data=json.dumps(order, ensure_ascii=False).encode("latin-1"),
        content_type="application/json; charset=iso-8859-1",
    )
    assert answer.status_code == 200
    run_id = answer.json["workflow_id"]
    document = api.client.get(f"/comfyui/workflow/{run_id}/progress").json["progress"]
    assert document["workflow_name"] == "für"


def test_a_file_that_is_no_json_says_what_is_wrong(api: Api, tmp_path: Path) -> None:
    for content in (b"{'a': 1}", b"\x89PNG", b"[" * 100_000):
        (tmp_path / "w.json").write_bytes(content)
        answer = execute(api, workflow_file=str(tmp_path / "w.json"))
        assert answer.status_code == 400
        assert "Failed to parse workflow" in answer.json["message"]


def test_a_name_of_two_images_is_refused_and_a_name_with_the_directory_is_taken(
    api: Api, tmp_path: Path
) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        Image.new("RGB", (2, 2)).save(tmp_path / place / "a.png")
    images = first, _ = [str(tmp_path / place / "a.png") for place in ("one", "two")]

    def loading(name: str) -> dict[str, Any]:
        return {**GRAPH, "1": {"class_type": "LoadImage", "inputs": {"image": name}}}

    answer = execute(api, workflow=loading("a.png"), input_images=images)
    assert answer.status_code == 400
    assert '2 different files called "a.png"' in answer.json["message"]
    for name in ("two/a.png", first):
        assert execute(api, workflow=loading(name), input_images=images).status_code == 200
    run_id = execute(api, workflow=loading("a.png"), input_images=[first, first]).json["workflow_id"]
    assert api.journal.get(run_id).request.input_images == (first,)


def test_a_directory_of_frames_is_an_input(api: Api, tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    (frames / "more").mkdir(parents=True)
    assert "has no files" in execute(api, workflow=GRAPH, input_images=[str(frames)]).json["message"]
    (frames / ".DS_Store").write_bytes(b"\0\1")
    Image.new("RGB", (2, 2)).save(frames / "more" / "1.png")
    run_id = execute(api, workflow=GRAPH, input_images=[f"{frames}/"]).json["workflow_id"]
    assert api.journal.get(run_id).request.input_images == (f"{frames}/",)
    (frames / "program").write_bytes(b"\x7fELF\0\0")
    assert "is not of a kind" in execute(api, workflow=GRAPH, input_images=[str(frames)]).json["message"]


def test_a_path_is_found_in_the_spelling_of_another_system(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    decomposed = unicodedata.normalize("NFD", "Bücher/é.png")
    (tmp_path / decomposed).parent.mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / decomposed)
    for path in (f"{tmp_path}/Bücher/é.png", "~/Bücher/é.png", f"{tmp_path}\\Bücher\\é.png"):
        run_id = execute(api, workflow=GRAPH, input_images=[path]).json["workflow_id"]
        assert api.journal.get(run_id).request.input_images == (str(tmp_path / decomposed),)
    assert "not found" in execute(api, workflow=GRAPH, input_images=["~\\no.png"]).json["message"]


def test_an_image_goes_by_the_name_it_was_given_under(api: Api, tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "IMG_1234.png")
    (tmp_path / "photo.png").symlink_to(tmp_path / "IMG_1234.png")
    answer = execute(api, workflow=GRAPH, input_images=[str(tmp_path / "x" / ".." / "photo.png")])
    (image,) = api.journal.get(answer.json["workflow_id"]).request.input_images
    assert image == str(tmp_path / "photo.png")


def test_unknown_ids(api: Api) -> None:
    def ask(method: str, what: str) -> tuple[int, Any]:
        answer = api.client.open(f"/comfyui/workflow/comfyui_workflow_123/{what}", method=method)
        return answer.status_code, answer.json.get("message", answer.json.get("active"))

    assert ask("GET", "progress") == (404, "Workflow not found: comfyui_workflow_123")
    assert ask("GET", "outputs") == (404, "Workflow not found: comfyui_workflow_123")
    assert ask("GET", "outputs/0") == (404, "Workflow not found: comfyui_workflow_123")
    assert ask("POST", "retry") == (404, "Workflow not found: comfyui_workflow_123")
    assert ask("POST", "cancel") == (404, "Workflow not found or already completed: comfyui_workflow_123")
    assert ask("GET", "active") == (200, False)


def test_cancel_is_asked_for_once_and_refused_when_it_is_too_late(api: Api) -> None:
    run_id = execute(api, workflow=GRAPH).json["workflow_id"]
    url = f"/comfyui/workflow/{run_id}"
    assert api.client.get(f"{url}/active").json == {"success": True, "active": True}
    answer = api.client.post(f"{url}/cancel")
    assert answer.json == {"success": True, "message": "Workflow cancellation initiated"}
    assert api.journal.get(run_id).is_cancel_requested
    api.journal.record(run_id, events.RunCancelled())
    late = api.client.post(f"{url}/cancel")
    assert (late.status_code, late.json["code"]) == (404, "run_finished")
    assert late.json["message"] == f"Workflow not found or already completed: {run_id}"
    never = api.client.post("/comfyui/workflow/comfyui_workflow_123/cancel")
    assert (never.status_code, never.json["code"]) == (404, "run_not_found")
    assert api.client.get(f"{url}/active").json == {"success": True, "active": False}


def test_retry_takes_up_what_can_be_fetched_and_never_what_would_run_again(api: Api) -> None:
    run_id = execute(api, workflow=GRAPH).json["workflow_id"]
    url = f"/comfyui/workflow/{run_id}/retry"
    assert api.client.post(url).status_code == 409
    api.journal.record(run_id, events.RunFailed(code="connection_failed", message="x"))
    assert api.client.post(url).json["success"] is True
    assert api.executor.started == [run_id, run_id]
    api.journal.record(run_id, events.RunFailed(code="prompt_failed", message="x"))
    answer = api.client.post(url)
    assert answer.status_code == 409
    assert "Execute it again" in answer.json["message"]


@pytest.mark.parametrize("code", [None, "connection_failed", "prompt_failed", "api_key_gone"])
def test_the_document_says_what_a_retry_would_be_answered(api: Api, code: str | None) -> None:
    run_id = execute(api, workflow=GRAPH).json["workflow_id"]
    if code is not None:
        api.journal.record(run_id, events.RunFailed(code=code, message="x"))
    url = f"/comfyui/workflow/{run_id}"
    told = api.client.get(f"{url}/progress").json["progress"]
    (line,) = api.client.get("/comfyui/workflow").json["workflows"]
    assert (line["can_retry"], line["retry_refused"]) == (told["can_retry"], told["retry_refused"])
    answer = api.client.post(f"{url}/retry")
    assert told["can_retry"] is (answer.status_code == 200)
    assert told["retry_refused"] == (None if told["can_retry"] else answer.json["message"])


def run_with_output(api: Api, path: Path) -> str:
    run_id: str = execute(api, workflow=GRAPH).json["workflow_id"]
    output = OutputFile(filename=path.name, file_type=FileType.IMAGE)
    missing = OutputFile(filename="gone.png", error="not on the instance any more")
    api.journal.record(run_id, events.PromptSucceeded(outputs=(output, missing)))
    api.journal.record(run_id, events.OutputsFetched(outputs=(replace(output, local_path=str(path)),)))
    return run_id


def test_an_output_is_served_whole_in_ranges_and_small(api: Api, tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    Image.effect_noise((640, 320), 50).save(path)
    url = f"/comfyui/workflow/{run_with_output(api, path)}/outputs"
    whole = api.client.get(f"{url}/0")
    assert (whole.data, whole.mimetype) == (path.read_bytes(), "image/png")
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    part = api.client.get(f"{url}/0", headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.data) == (206, path.read_bytes()[5:10])
    assert api.client.get(f"{url}/0", headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    preview = api.client.get(f"{url}/0?preview=64")
    small = Image.open(io.BytesIO(preview.data))
    assert (small.format, small.size) == ("WEBP", (64, 32))
    same = {"If-None-Match": preview.headers["ETag"]}
    assert api.client.get(f"{url}/0?preview=64", headers=same).status_code == 304
    assert api.client.get(f"{url}/0?preview=32", headers=same).status_code == 200
    listed = api.client.get(url).json["outputs"]
    assert [(o["filename"], o["downloaded"]) for o in listed] == [("out.png", True), ("gone.png", False)]
    gone = api.client.get(f"{url}/1")
    assert gone.status_code == 404
    assert "not on the instance any more" in gone.json["message"]
    assert api.client.get(f"{url}/2").status_code == 404
    for size in ("0", "x", "99999", "-5", "²"):
        assert api.client.get(f"{url}/0?preview={size}").status_code == 400


def test_a_preview_is_of_the_file_as_it_is_now(api: Api, tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    Image.new("RGB", (640, 320), "red").save(path)
    url = f"/comfyui/workflow/{run_with_output(api, path)}/outputs/0?preview=16"
    before = api.client.get(url)
    assert api.client.get(url).data == before.data
    Image.new("RGB", (640, 320), "blue").save(path)
    os.utime(path, ns=(1, 1))
    after = api.client.get(url, headers={"If-None-Match": before.headers["ETag"]})
    assert after.status_code == 200
    assert Image.open(io.BytesIO(after.data)).convert("RGB").getpixel((8, 4))[2] > 200


def test_a_file_that_a_browser_could_run_is_a_download(api: Api, tmp_path: Path) -> None:
    for name in ("page.html", "drawing.svg", "thing.xml"):
        (tmp_path / name).write_text("<script>alert(1)</script>")
        answer = api.client.get(f"/comfyui/workflow/{run_with_output(api, tmp_path / name)}/outputs/0")
        assert "attachment" in answer.headers["Content-Disposition"]
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        answer.close()
    answer = api.client.get(
        f"/comfyui/workflow/{run_with_output(api, tmp_path / 'page.html')}/outputs/0?preview=64"
    )
    assert (answer.status_code, answer.json["success"]) == (400, False)


def test_uploaded_files_can_be_used_and_keep_their_names(api: Api) -> None:
    def upload(name: str, content: bytes) -> Any:
        return api.client.post("/comfyui/workflow/files", data={"file": (io.BytesIO(content), name)})

    answer = upload("flow.json", json.dumps(GRAPH).encode())
    assert answer.status_code == 200
    assert Path(answer.json["path"]).is_relative_to(api.upload_path())
    assert execute(api, workflow_file=answer.json["path"]).status_code == 200
    outside = upload("../../etc/x.json", b"1")
    assert outside.json["files"][0]["filename"] == "x.json"
    assert Path(outside.json["path"]).resolve().is_relative_to(api.upload_path())
    for name in ("..", "a\nb.png", "n" * 300):
        refused = upload(name, b"1")
        assert (refused.status_code, refused.json["success"]) == (400, False)
    assert api.client.post("/comfyui/workflow/files", data={}).status_code == 400
    assert api.client.post("/comfyui/workflow/files", json={"a": 1}).status_code == 400


def test_the_list_is_newest_first_in_pages(api: Api) -> None:
    ids = [execute(api, workflow=GRAPH, workflow_name=str(n)).json["workflow_id"] for n in range(5)]
    first = api.client.get("/comfyui/workflow?limit=3").json
    assert [w["workflow_id"] for w in first["workflows"]] == ids[:1:-1]
    assert (first["total"], first["next"]) == (5, ids[2])
    second = api.client.get(f"/comfyui/workflow?limit=3&before={first['next']}").json
    assert [w["workflow_name"] for w in second["workflows"]] == ["1", "0"]
    assert second["next"] is None
    for limit in ("0", "x", "501", "-1", "1e3", "9" * 400):
        assert api.client.get(f"/comfyui/workflow?limit={limit}").status_code == 400


def test_unknown_routes_and_methods_are_worded_by_the_api(api: Api) -> None:
    for method, path, status in (
        ("GET", "/comfyui/workflow/a/b/c", 404),
        ("GET", "/comfyui/workflow/execute", 405),
        ("DELETE", "/comfyui/workflow/state", 405),
        ("GET", "/nowhere", 404),
    ):
        answer = api.client.open(path, method=method)
        assert (answer.status_code, answer.json["success"]) == (status, False)
        assert answer.json["message"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("origin", ["http://localhost", "http://127.0.0.1", "http://10.0.78.66"])
def test_pages_of_the_specified_hosts_may_use_every_route(api: Api, route: str, origin: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST",
               "Access-Control-Request-Headers": "content-type"}  # fmt: skip
    answer = api.client.options(f"/comfyui/workflow/{route}", headers=headers)
    assert answer.status_code in (200, 204)
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert "content-type" in answer.headers["Access-Control-Allow-Headers"].lower()
    plain = api.client.get("/comfyui/workflow/state", headers={"Origin": origin})
    assert plain.headers["Access-Control-Allow-Origin"] == origin


EDITOR_FILE = {
    "nodes": [
        {"id": 1, "type": "CLIPTextEncode", "mode": 0, "widgets_values": ["a lake"], "title": "<i>Wish</i>"},
        {"id": 2, "type": "Unknown", "mode": 0, "widgets_values": [1, 2, 3]},
    ],
    "links": [],
}


def test_inspect_tells_what_is_in_a_workflow_without_any_instance(api: Api, workflow_file: str) -> None:
    for body in ({"workflow": GRAPH}, {"workflow_file": workflow_file}):
        told = api.client.post("/comfyui/workflow/inspect", json=body).json
        assert (told["success"], told["format"], told["needs_instance"]) == (True, "api", False)
        assert told["nodes"] == [
            {"node_id": "1", "class_type": "LoadImage", "title": "Photo"},
            {"node_id": "2", "class_type": "SaveImage", "title": None},
        ]
        assert [(each["name"], each["kind"]) for each in told["key_inputs"]] == [("1.image", "file")]
    told = api.client.post("/comfyui/workflow/inspect", json={"workflow": EDITOR_FILE}).json
    assert (told["format"], told["needs_instance"]) == ("editor", True)
    assert [node["title"] for node in told["nodes"]] == ["<i>Wish</i>", "Unknown"]
    assert [(each["name"], each["value"]) for each in told["key_inputs"]] == [("1.text", "a lake")]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"workflow": 1},
        {"workflow": {}},
        {"workflow": GRAPH, "workflow_file": "/x"},
        {"workflow_file": "/x"},
    ],
)
def test_inspect_says_why_there_is_nothing_to_tell(api: Api, body: Any) -> None:
    answer = api.client.post("/comfyui/workflow/inspect", json=body)
    assert (answer.status_code, answer.json["success"]) == (400, False)


def test_now_tells_what_is_underway_and_its_version_that_it_changed(api: Api, workflow_file: str) -> None:
    def now() -> Any:
        return api.client.get("/comfyui/workflow/now").json

    empty = now()
    assert (empty["executing"], empty["waiting"], empty["counts"]) == ([], [], {"executing": 0, "queued": 0})
    ids = [execute(api, workflow_file=workflow_file).json["workflow_id"] for _ in range(2)]
    added = now()
    assert [run["workflow_id"] for run in added["waiting"]] == ids
    assert added["version"] > empty["version"]
    api.journal.record(ids[0], events.ExecutionStarted())
    begun = now()
    assert [run["workflow_id"] for run in begun["executing"]] == [ids[0]]
    assert begun["counts"] == {"executing": 1, "queued": 1}
    assert begun["version"] > added["version"]
    api.journal.record(ids[0], events.NodeStarted(node_id="1"))
    assert now()["version"] == begun["version"]
    api.journal.record(ids[0], events.RunCompleted())
    assert now()["version"] > begun["version"]
    assert begun["executing"][0].keys() == api.client.get("/comfyui/workflow").json["workflows"][0].keys()


def with_key(api: Api, key: str, workflow_file: str, **body: Any) -> str:
    answer = api.client.post(
        "/comfyui/workflow/execute",
        json={"ssh_connection": SSH, "workflow_file": workflow_file, **body},
        headers={"Idempotency-Key": key},
    )
    assert answer.status_code == 200
    found: str = answer.json["workflow_id"]
    return found


def test_an_order_with_a_key_is_one_run_however_often_it_comes(api: Api, workflow_file: str) -> None:
    first = with_key(api, "mine", workflow_file)
    assert [with_key(api, "mine", workflow_file) for _ in range(3)] == [first] * 3
    others = {
        with_key(api, "another", workflow_file),
        with_key(api, "mine", workflow_file, priority=1),
        execute(api, workflow_file=workflow_file).json["workflow_id"],
    }
    assert len(others | {first}) == 4
    assert len(api.executor.started) == 4


def test_an_order_with_a_key_is_found_among_all_runs(api: Api, workflow_file: str) -> None:
    first = with_key(api, "mine", workflow_file)
    api.journal.record(first, events.RunCompleted())
    api.service.save_all([api.journal.get(first).request] * 1500)
    assert with_key(api, "mine", workflow_file) == first


def test_orders_with_one_key_at_the_same_time_are_one_run(api: Api, workflow_file: str) -> None:
    together = threading.Barrier(8)

    def order(_number: int) -> str:
        together.wait(20)
        with api.app.test_client() as client:
            answer = client.post(
                "/comfyui/workflow/execute",
                json={"ssh_connection": SSH, "workflow_file": workflow_file},
                headers={"Idempotency-Key": "\u00fc, of all"},
            )
            return str(answer.json["workflow_id"])

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(order, range(8)))) == 1
    assert len(api.executor.started) == 1
