"""The API of worker-comfyui from the view of its clients, with runs that are never executed."""

import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.execution.submit import extra_data_of
from comfyui_workflow.runs.events import (
    ExecutionEnded,
    ExecutionStarted,
    NoticeAdded,
    RunCancelled,
    RunCompleted,
    RunFailed,
)
from comfyui_workflow.runs.job import record_name
from comfyui_workflow.runs.model import OutputFile
from comfyui_workflow.stores.journal import now
from tests.api.conftest import Api
from tests.api.test_workflow import GRAPH

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
DEADLINE_S = 10.0
Json = dict[str, Any]


def until(holds: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def run(api: Api, path: str = "/run", *, given: Json | None = None, **besides: Any) -> str:
    answer = api.client.post(path, json={"input": {"workflow": GRAPH, **(given or {})}, **besides})
    assert answer.status_code == 200, answer.text
    assert answer.json["status"] == "IN_QUEUE"
    return str(answer.json["id"])


def refused(api: Api, body: Any) -> str:
    answer = api.client.post("/run", json=body)
    assert answer.status_code == 400, answer.text
    assert list(answer.json) == ["error"]
    return str(answer.json["error"])


def status(api: Api, job_id: str) -> Json:
    answer = api.client.get(f"/v2/any/status/{job_id}")
    assert answer.status_code == 200
    return dict(answer.json)


def make_outputs(api: Api, run_id: str, **contents: bytes) -> None:
    outputs = []
    for name, content in contents.items():
        path = api.tmp_path / name
        path.write_bytes(content)
        filename = name.replace("_", ".")
        outputs.append(OutputFile(filename=filename, local_path=str(path), size_bytes=len(content)))
    set_run(api, run_id, outputs=tuple(outputs))


def set_run(api: Api, run_id: str, **fields: Any) -> None:
    api.journal._store.update(run_id, lambda run: replace(run, **fields))


def complete(api: Api, job_id: str, **contents: bytes) -> Json:
    run_id = record_name(job_id)
    api.journal.record(run_id, ExecutionStarted())
    make_outputs(api, run_id, **contents)
    api.journal.record(run_id, RunCompleted())
    return finished(api, job_id)


def finished(api: Api, job_id: str) -> Json:
    until(lambda: api.jobs.get(job_id).job.final)
    return status(api, job_id)


def fail(api: Api, job_id: str, code: str, message: str, node_id: str | None = None) -> Json:
    api.journal.record(job_id, RunFailed(code=code, message=message, node_id=node_id))
    return finished(api, job_id)


def test_a_job_is_a_run_and_tells_how_it_goes(api: Api) -> None:
    job_id = run(api, "/v2/any/run")
    assert api.executor.started == [job_id]
    assert status(api, job_id) == {"id": job_id, "status": "IN_QUEUE"}
    assert api.client.get(f"/comfyui/workflow/{job_id}/progress").json["progress"]["status"] == "queued"
    api.journal.record(job_id, ExecutionStarted())
    underway = status(api, job_id)
    assert underway["status"] == "IN_PROGRESS"
    assert {"delayTime", "executionTime"} <= underway.keys()
    done = complete(api, job_id, a_png=PNG)
    assert done["status"] == "COMPLETED"
    assert done["output"] == {
        "images": [{"filename": "a.png", "type": "base64", "data": base64.b64encode(PNG).decode()}]
    }
    assert all(isinstance(done[name], int) for name in ("delayTime", "executionTime"))


def test_every_kind_of_file_comes_in_the_same_shape_and_what_was_not_fatal_beside(api: Api) -> None:
    job_id = run(api)
    api.journal.record(job_id, NoticeAdded(message="something to know"))
    output = complete(api, job_id, v_mp4=b"video" * 1_000_000, s_flac=b"", gone_png=b"x")["output"]
    assert [each["filename"] for each in output["images"]] == ["v.mp4", "s.flac", "gone.png"]
    assert base64.b64decode(output["images"][0]["data"]) == b"video" * 1_000_000
    assert "errors" not in output, "clients take a job with errors for a failed one"
    assert output["notices"] == ["something to know"]
    for name in ("v_mp4", "gone_png"):
        (api.tmp_path / name).unlink()
    output = status(api, job_id)["output"]
    assert [each["filename"] for each in output["images"]] == ["s.flac"]
    assert [error.split()[0] for error in output["errors"]] == ["v.mp4", "gone.png"]
    (api.tmp_path / "s_flac").unlink()
    assert status(api, job_id)["output"].keys() == {"images", "errors", "notices"}


def test_nothing_at_all_is_said_so(api: Api) -> None:
    done = complete(api, run(api))
    assert done["output"] == {"images": [], "status": "success_no_images"}


def test_a_head_changes_nothing_and_waits_for_nothing(api: Api) -> None:
    job_id = run(api)
    waiting = threading.Thread(
        target=lambda: api.app.test_client().head(f"/status-sync/{job_id}?wait=300000"), daemon=True
    )
    waiting.start()
    waiting.join(DEADLINE_S)
    assert not waiting.is_alive()
    complete(api, job_id, a_png=PNG)
    heads = [api.client.head(f"/stream/{job_id}") for _ in range(2)]
    answer = api.client.get(f"/stream/{job_id}")
    assert [chunk["output"]["filename"] for chunk in answer.json["stream"]] == ["a.png"]
    assert [head.content_length for head in heads] == [len(answer.data)] * 2


def test_runsync_answers_the_finished_job_or_the_unfinished_one_in_time(api: Api) -> None:
    def finish() -> None:
        until(lambda: api.executor.started)
        complete(api, api.executor.started[0], a_png=PNG)

    thread = threading.Thread(target=finish)
    thread.start()
    answer = api.client.post("/v2/any/runsync", json={"input": {"workflow": GRAPH}})
    thread.join()
    assert answer.json["id"] == f"sync-{api.executor.started[0]}"
    assert answer.json["output"]["images"][0]["filename"] == "a.png"
    began_s = time.monotonic()
    late = api.client.post("/runsync?wait=1000", json={"input": {"workflow": GRAPH}}).json
    assert (late["status"], late["id"][:5]) == ("IN_QUEUE", "sync-")
    assert time.monotonic() - began_s < 30, "without the wait it were a minute and a half"
    assert api.client.get(f"/v2/any/status-sync/{late['id']}?wait=1000").json["status"] == "IN_QUEUE"
    assert api.client.post("/runsync?wait=999", json={"input": {"workflow": GRAPH}}).status_code == 400
    assert len(api.executor.started) == 2


def test_only_so_many_wait_and_the_others_are_answered_at_once(api: Api) -> None:
    job_ids = [run(api) for _ in range(7)]
    answers: dict[str, Json] = {}

    def wait(job_id: str) -> None:
        answers[job_id] = api.app.test_client().get(f"/status-sync/{job_id}?wait=60000").json

    threads = [threading.Thread(target=wait, args=[job_id]) for job_id in job_ids]
    for thread in threads:
        thread.start()
    until(lambda: len(answers) == 1)
    assert next(iter(answers.values()))["status"] == "IN_QUEUE"
    for job_id in job_ids:
        complete(api, job_id)
    for thread in threads:
        thread.join(DEADLINE_S)
    assert [each["status"] for each in answers.values()] == ["IN_QUEUE", *["COMPLETED"] * 6]


def test_outputs_are_streamed_once(api: Api) -> None:
    job_id = run(api)
    assert api.client.get(f"/v2/any/stream/{job_id}").json == {
        "id": job_id,
        "status": "IN_QUEUE",
        "stream": [],
    }
    complete(api, job_id, a_png=PNG, b_mp4=b"video", gone_png=b"")
    (api.tmp_path / "gone_png").unlink()
    answers = [api.client.get(f"/stream/{job_id}").json for _ in range(2)]
    assert [answer["status"] for answer in answers] == ["COMPLETED"] * 2
    assert [chunk["output"]["filename"] for chunk in answers[0]["stream"]] == ["a.png", "b.mp4"]
    assert base64.b64decode(answers[0]["stream"][1]["output"]["data"]) == b"video"
    assert answers[1]["stream"] == []


def test_a_large_body_is_refused_by_the_routes_too(api: Api) -> None:
    image = {"name": "a.png", "image": "A" * (10 * 1024 * 1024)}
    answer = api.client.post("/run", json={"input": {"workflow": GRAPH, "images": [image]}})
    assert (answer.status_code, list(answer.json)) == (413, ["error"])


def test_status_is_answered_to_a_post_too_and_an_unknown_job_has_a_body(api: Api) -> None:
    job_id = run(api)
    assert api.client.post(f"/status/{job_id}").json["status"] == "IN_QUEUE"
    for path in ("status", "status-sync", "stream"):
        answer = api.client.get(f"/v2/any/{path}/nothing")
        assert (answer.status_code, list(answer.json)) == (404, ["error"])
    for path in ("cancel", "retry"):
        assert api.client.post(f"/v2/any/{path}/nothing").status_code == 404


def test_cancelled_is_cancelled_at_once_whatever_the_run_does(api: Api) -> None:
    job_id = run(api)
    answer = api.client.post(f"/v2/any/cancel/{job_id}", data="", content_type="application/json")
    assert answer.json == {"id": job_id, "status": "CANCELLED"}
    assert api.journal.get(job_id).is_cancel_requested
    assert finished(api, job_id)["status"] == "CANCELLED"
    api.journal.record(job_id, RunCompleted())
    again = api.client.post(f"/cancel/{job_id}").json
    assert again["status"] == "CANCELLED"
    assert "output" not in status(api, job_id)


def test_its_times_are_those_of_its_execution_and_end_with_it(api: Api) -> None:
    job_id = run(api)
    queued_at = api.journal.get(job_id).queue_time
    set_run(api, job_id, queue_time=queued_at - timedelta(seconds=9), last_update=queued_at)
    api.journal.record(job_id, ExecutionEnded(execution_s=2.5, began_at=queued_at - timedelta(seconds=5)))
    done = complete(api, job_id)
    assert (done["delayTime"], done["executionTime"]) == (4000, 2500)


def test_the_times_of_a_job_that_was_cancelled_stay_as_they_were(api: Api) -> None:
    waiting, executing = run(api), run(api)
    set_run(api, executing, queue_time=now() - timedelta(seconds=9), last_update=now() - timedelta(seconds=9))
    api.journal.record(executing, ExecutionStarted())
    for job_id in (waiting, executing):
        api.client.post(f"/cancel/{job_id}")
    said = [finished(api, job_id) for job_id in (waiting, executing)]
    assert ["executionTime" in each for each in said] == [False, True]
    api.journal.record(waiting, ExecutionStarted())
    assert [status(api, job_id) for job_id in (waiting, executing)] == said
    for job_id in (waiting, executing):
        api.journal.record(job_id, ExecutionEnded(execution_s=None))
        api.journal.record(job_id, RunCancelled())
    assert [status(api, job_id) for job_id in (waiting, executing)] == said


def test_a_run_cancelled_elsewhere_is_a_job_cancelled(api: Api) -> None:
    job_id = run(api)
    api.client.post(f"/comfyui/workflow/{job_id}/cancel")
    api.journal.record(job_id, RunCancelled())
    assert finished(api, job_id)["status"] == "CANCELLED"


def test_the_queue_of_one_endpoint_is_purged_and_what_executes_goes_on(api: Api) -> None:
    job_ids = [run(api) for _ in range(3)]
    api.journal.record(job_ids[0], ExecutionStarted())
    api.instances.directory.add({"name": "gpu1", "ssh_connection": "ssh root@h", "tags": ["big"]})
    other = run(api, "/v2/big/run")
    answer = api.client.post("/purge-queue", data="", content_type="application/json")
    assert answer.json == {"removed": 2, "status": "completed"}
    assert [status(api, job_id)["status"] for job_id in [*job_ids, other]] == [
        "IN_PROGRESS",
        "CANCELLED",
        "CANCELLED",
        "IN_QUEUE",
    ]


def test_an_endpoint_is_an_instance_a_tag_or_any(api: Api) -> None:
    api.instances.directory.add({"name": "gpu1", "ssh_connection": "ssh root@h", "tags": ["Big"]})
    asked = [api.journal.get(run(api, f"/v2/{name}/run")).request for name in ("GPU1", "BIG", "any")]
    assert [each.ssh_connection for each in asked] == ["gpu1", "any:big", "any"]
    assert asked[0].instance_id
    assert api.client.get("/v2/Big/health").json["jobs"]["inQueue"] == 1
    answer = api.client.post("/v2/small/run", json={"input": {"workflow": GRAPH}})
    assert answer.status_code == 404
    assert "small" in answer.json["error"]


def test_bare_paths_go_where_the_setting_says(make_api: Callable[..., Api]) -> None:
    api = make_api(default_endpoint="ssh root@gpu.example -p 22")
    request = api.journal.get(run(api)).request
    assert request.ssh_connection == "ssh root@gpu.example -p 22"


def test_health_counts_jobs_and_workers_of_the_endpoint(api: Api) -> None:
    api.instances.directory.add({"name": "gpu1", "ssh_connection": "ssh root@h"})
    job_ids = [run(api) for _ in range(4)]
    complete(api, job_ids[0])
    fail(api, job_ids[1], "prompt_failed", "x")
    api.journal.record(job_ids[2], ExecutionStarted())
    answer = api.client.get("/v2/any/health").json
    assert answer["jobs"] == {"completed": 1, "failed": 1, "inProgress": 1, "inQueue": 1, "retried": 0}
    assert answer["workers"] == {"idle": 0, "initializing": 1, "ready": 0, "running": 0, "throttled": 0}


@pytest.mark.parametrize(
    ("code", "message", "node_id", "words"),
    [
        (
            "prompt_failed",
            "it broke",
            "1",
            "Workflow execution error: Node Type: LoadImage, Node ID: 1, Message: it broke",
        ),
        (
            "invalid_workflow",
            "The instance cannot run the workflow: node 30 (X): 'model' is not there",
            "30",
            "Workflow validation failed: node 30 (X): 'model' is not there",
        ),
        (
            "connection_failed",
            "Failed to create SSH tunnel: refused",
            None,
            "ComfyUI server (any) not reachable after multiple retries: Failed to create SSH tunnel: refused",
        ),
        (
            "key_refused",
            "The key file /k does not exist",
            None,
            "ComfyUI server (any) not reachable after multiple retries: The key file /k does not exist",
        ),
        ("file_refused", "a.png", None, "Failed to upload one or more input images: a.png"),
        ("outputs_missing", "One is missing", None, "One is missing"),
    ],
)
def test_errors_are_in_the_words_of_the_specification(
    api: Api, code: str, message: str, node_id: str | None, words: str
) -> None:
    failed = fail(api, run(api), code, message, node_id)
    assert (failed["status"], failed["error"]) == ("FAILED", words)


def failed_order(api: Api, given: Any) -> str:
    """Orders a job with this `input`, which is accepted, and returns the error that it ends with."""
    answer = api.client.post("/run", json={"input": given})
    assert answer.status_code == 200, answer.text
    assert answer.json["status"] == "IN_QUEUE"
    done = finished(api, answer.json["id"])
    assert (done["status"], "output" in done) == ("FAILED", False)
    return str(done["error"])


def test_an_invalid_order_is_accepted_and_fails_in_the_words_of_the_worker(api: Api) -> None:
    assert failed_order(api, None) == "Please provide input"
    assert failed_order(api, "{") == "Invalid JSON format in input"
    assert failed_order(api, {}) == "Missing 'workflow' parameter"
    assert failed_order(api, {"workflow": None}) == "Missing 'workflow' parameter"
    for broken in ({"1": {"class_type": 7, "inputs": {}}}, {}, [], "text", {"1": GRAPH["1"], "2": 7}):
        assert failed_order(api, {"workflow": broken}).startswith("Workflow validation failed: ")
    listed = "'images' must be a list of objects with 'name' and 'image' keys"
    for images in ("x", [1], [{"name": "a.png"}], [{"name": 1, "image": ""}]):
        assert failed_order(api, {"workflow": GRAPH, "images": images}) == listed
    for name, image in (("../a.png", "eA=="), ("", "eA=="), ("a.png", "no base64!"), ("a.png", "eA=A")):
        images = [{"name": name, "image": image}]
        said = failed_order(api, {"workflow": GRAPH, "images": images})
        assert said.startswith("Failed to upload one or more input images: ")
    for image in ("", "data:image/png;base64,", "data:image/png;base64", "eAxAx", "http://["):
        images = [{"name": "a.png", "image": "eA=="}, {"name": "b.png", "image": image}]
        said = failed_order(api, {"workflow": GRAPH, "images": images})
        assert said.startswith("Failed to upload one or more input images: b.png: ")
    assert not api.executor.started
    assert not api.upload_path().exists()


def test_an_invalid_order_is_a_failed_run_that_tells_why(api: Api) -> None:
    answer = api.client.post("/v2/any/runsync", json={"input": {}})
    assert (answer.status_code, answer.json["status"]) == (200, "FAILED")
    run_id = record_name(answer.json["id"])
    document = api.client.get(f"/comfyui/workflow/{run_id}/progress").json["progress"]
    assert (document["status"], document["total_nodes"]) == ("failed", 0)
    assert (document["error_code"], document["can_retry"]) == ("invalid_order", False)
    assert document["error_message"] == "Missing 'workflow' parameter"
    order = api.client.get(f"/comfyui/workflow/{run_id}/request")
    assert (order.status_code, order.json["request"]["workflow"]) == (200, None)
    assert api.client.get("/v2/any/health").json["jobs"]["failed"] == 1
    assert api.client.post(f"/retry/{answer.json['id']}").json["status"] == "IN_QUEUE"
    assert finished(api, answer.json["id"])["error"] == "Missing 'workflow' parameter"


def test_what_is_not_part_of_the_order_is_refused_at_once(api: Api) -> None:
    assert refused(api, {"x": 1}) == "Please provide input"
    bad: list[Json] = [{"webhook": "ftp://x"}, {"policy": []}, {"webhookV2": 7}]
    bad += [
        {"s3Config": {"endpointUrl": "https://s3.example", "accessId": "i", "accessSecret": "s", **path}}
        for path in ({"objectPath": "a/../b"}, {"objectPath": "x" * 513}, {"objectPath": 7})
    ]
    for besides in bad:
        refused(api, {"input": {}, **besides})
    assert api.client.post("/v2/small/run", json={"input": {}}).status_code == 404


def test_the_fields_of_runpod_sdk_are_heeded(api: Api) -> None:
    config = {
        "accessId": "i",
        "accessSecret": "s",
        "bucketName": "b",
        "endpointUrl": "https://s3.example",
        "objectPath": "/renders//today/",
    }
    job_id = run(
        api,
        policy={"executionTimeout": 3000},
        webhook="https://c.example/h",
        webhookV2="https://c.example/second",
        s3Config=config,
    )
    job = api.jobs.get(job_id).job
    assert job.execution_timeout_s == 3
    assert job.webhooks == ("https://c.example/h", "https://c.example/second")
    assert job.bucket is not None
    assert job.bucket.object_path == "renders/today"
    only_v2 = api.jobs.get(run(api, webhookV2="https://c.example/second")).job
    assert only_v2.webhooks == ("https://c.example/second",)
    same = api.jobs.get(run(api, webhook="https://c.example/h", webhookV2="https://c.example/h")).job
    assert same.webhooks == ("https://c.example/h",)


def test_a_file_that_two_nodes_list_counts_for_both(api: Api) -> None:
    job_id = run(api)
    path = api.tmp_path / "a.png"
    path.write_bytes(PNG)
    picture = OutputFile(filename="a.png", node_id="1", other_node_ids=("2",), local_path=str(path))
    set_run(api, job_id, outputs=(picture,))
    api.journal.record(job_id, RunCompleted())
    images = finished(api, job_id)["output"]["images"]
    assert [each["filename"] for each in images] == ["a.png", "a.png"]
    assert images[0] == images[1]
    assert len(api.client.get(f"/stream/{job_id}").json["stream"]) == 2


def test_the_input_may_be_a_text_and_the_workflow_the_editors(api: Api) -> None:
    answer = api.client.post("/run", json={"input": json.dumps({"workflow": GRAPH})})
    assert api.journal.get(answer.json["id"]).request.workflow.graph == GRAPH
    editor = {"nodes": [{"id": 1, "type": "LoadImage"}], "links": []}
    answer = api.client.post("/run", json={"input": {"workflow": editor}})
    assert api.journal.get(answer.json["id"]).request.workflow.editor_file == editor


def test_images_are_kept_under_their_names_with_or_without_a_data_uri(api: Api) -> None:
    encoded = base64.b64encode(PNG).decode()
    images = [
        {"name": "a.png", "image": "data:image/png;base64," + encoded},
        {"name": "b.png", "image": encoded[:40] + "\n" + encoded[40:]},
        {"name": "a.png", "image": base64.b64encode(b"later").decode()},
        {"name": "c.png", "image": base64.urlsafe_b64encode(PNG).decode().rstrip("=")},
    ]
    paths = api.journal.get(run(api, given={"images": images})).request.input_images
    kept = {Path(path).name: Path(path).read_bytes() for path in paths}
    assert kept == {"a.png": b"later", "b.png": PNG, "c.png": PNG}


def test_null_is_the_same_as_nothing(api: Api) -> None:
    nothing = dict.fromkeys(("executionTimeout", "ttl", "lowPriority"))
    for besides in ({"policy": nothing}, {"policy": None, "webhook": None, "s3Config": None}):
        assert api.journal.get(run(api, given={"images": None}, **besides)).priority == 0


def test_images_may_be_named_by_their_url_but_not_by_a_private_one(api: Api) -> None:
    images = [{"name": "a.png", "image": "http://127.0.0.1:9/a.png"}]
    said = failed_order(api, {"workflow": GRAPH, "images": images})
    assert said.startswith("Failed to upload one or more input images: a.png: ")
    assert "not public" in said
    images = [{"name": "a.png", "image": "http://name.invalid/a.png"}, {"name": "b.png", "image": "eA=="}]
    job_id = run(api, given={"images": images})
    paths = api.journal.get(job_id).request.input_images
    assert sorted(Path(path).name for path in paths) == ["a.png", "b.png"]
    assert api.executor.started == []


def test_urls_of_a_client_must_be_public_ones(api: Api) -> None:
    config = {"endpointUrl": "http://169.254.169.254", "accessId": "i", "accessSecret": "s"}
    for besides in ({"webhook": "http://127.0.0.1/h"}, {"webhook": "ftp://x"}, {"s3Config": config}):
        refused(api, {"input": {"workflow": GRAPH}, **besides})
    refused(api, {"input": {"workflow": GRAPH}, "s3Config": {"endpointUrl": "https://s3.example"}})
    public = {"bucketName": "b", **config, "endpointUrl": "https://s3.example"}
    job = api.jobs.get(run(api, webhook="https://c.example/h", s3Config=public)).job
    assert job.bucket is not None
    assert (job.bucket.bucket_name, job.bucket.secret_access_key) == ("b", "s")
    assert job.webhook == "https://c.example/h"


def test_a_key_of_comfy_org_goes_along_with_the_prompt_and_is_told_nobody(api: Api) -> None:
    job_id = run(api, given={"comfy_org_api_key": "comfyui-secret"})
    kept = api.journal.get(job_id)
    assert extra_data_of(kept, "a process", "comfyui-secret")["api_key_comfy_org"] == "comfyui-secret"
    assert kept.request.has_comfy_org_api_key
    assert "comfyui-secret" not in repr(kept)
    for path in ("progress", "request"):
        assert "comfyui-secret" not in api.client.get(f"/comfyui/workflow/{job_id}/{path}").text


def test_the_policy_sets_priority_timeout_and_time_to_live(api: Api) -> None:
    job_id = run(api, policy={"executionTimeout": 5000, "ttl": 20_000, "lowPriority": True})
    job = api.jobs.get(job_id).job
    assert job.execution_timeout_s == 5
    assert (job.expires_at - job.created_at).total_seconds() == 20
    assert api.journal.get(job_id).priority == -100
    for policy in (
        {"executionTimeout": 0},
        {"executionTimeout": 604_800_001},
        {"ttl": 9999},
        [],
        {"ttl": "x"},
    ):
        refused(api, {"input": {"workflow": GRAPH}, "policy": policy})


def test_a_failed_job_is_retried_and_one_that_its_workflow_failed_is_run_anew(api: Api) -> None:
    job_id = run(api)
    assert api.client.post(f"/retry/{job_id}").status_code == 409
    fail(api, job_id, "connection_failed", "refused")
    assert api.client.post(f"/retry/{job_id}").json == {"id": job_id, "status": "IN_QUEUE"}
    assert api.executor.started == [job_id, job_id]
    fail(api, job_id, "prompt_failed", "Node execution failed: x")
    api.client.post(f"/retry/{job_id}")
    again = api.executor.started[-1]
    assert again != job_id
    assert status(api, job_id)["status"] == "IN_QUEUE"
    api.journal.record(again, RunCompleted())
    assert finished(api, job_id)["status"] == "COMPLETED"
    assert api.client.get("/v2/any/health").json["jobs"]["retried"] == 2


def test_a_failed_run_that_is_retried_as_a_run_completes_its_job(api: Api) -> None:
    job_id = run(api)
    fail(api, job_id, "connection_failed", "refused")
    api.client.post(f"/comfyui/workflow/{job_id}/retry")
    complete(api, job_id, a_png=PNG)
    until(lambda: status(api, job_id)["status"] == "COMPLETED")


def test_an_endpoint_is_asked_only_so_often_where_that_is_wished_for(make_api: Callable[..., Api]) -> None:
    assert all(make_api().client.post("/purge-queue").status_code == 200 for _ in range(3))
    api = make_api(rate_limits=True)
    codes = [api.client.post(path).status_code for path in ("/purge-queue", "/v2/ANY/purge-queue")]
    assert codes == [200, 200]
    answer = api.client.post("/v2/any/purge-queue")
    assert (answer.status_code, list(answer.json)) == (429, ["error"])
    assert 1 <= int(answer.headers["Retry-After"]) <= 10
    assert api.client.get("/v2/any/health").status_code == 200


def test_what_there_is_not_is_worded_too(api: Api) -> None:
    for path, code in (("/v2/any/run", 405), ("/v2/any/nothing", 404), ("/run", 405)):
        answer = api.client.get(path)
        assert (answer.status_code, list(answer.json)) == (code, ["error"])
    assert "POST" in api.client.get("/run").headers["Allow"]


def test_a_token_is_taken_bare_too(make_api: Callable[..., Api]) -> None:
    api = make_api(api_token="secret")
    body = {"input": {"workflow": GRAPH}}
    for given, code in (("Bearer secret", 200), ("secret", 200), ("Bearer wrong", 401), ("wrong", 401)):
        assert api.client.post("/v2/any/run", json=body, headers={"Authorization": given}).status_code == code
    for path in ("/v2/any/run", "/runsync"):
        answer = api.client.post(path, json=body)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert answer.json == {"error": "An API token is needed: Authorization: Bearer <token>"}


def test_any_key_will_do_where_none_is_set_but_no_page_of_another_site(api: Api) -> None:
    body = {"input": {"workflow": GRAPH}}
    headers = {"Authorization": "Bearer whatever"}
    assert api.client.post("/run", json=body, headers=headers).status_code == 200
    foreign = {**headers, "Origin": "http://evil.example"}
    assert api.client.post("/run", json=body, headers=foreign).status_code == 403
    assert api.client.get("/v2/any/health", headers={"Host": "evil.example"}).status_code == 403
