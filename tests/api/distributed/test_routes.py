"""/distributed without any instance that answers: configuration, checks of bodies, and their words."""

import base64
import re
from typing import Any

import pytest
from werkzeug.test import TestResponse

from comfyui_workflow.api.comfyui_distributed.machine import (
    FilePlace,
    file_place,
    network_info,
    recommended_ip,
    system_info,
)
from comfyui_workflow.api.comfyui_distributed.queue_request import read_queue_request
from comfyui_workflow.api.comfyui_distributed.results import MOST_JOBS, PreparedJobs
from comfyui_workflow.errors import InvalidRequest
from tests.api.conftest import Api

BASE = "/distributed"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
GRAPH = {"1": {"class_type": "EmptyImage", "inputs": {}}}


def add(api: Api, name: str, **fields: Any) -> None:
    answer = api.client.post(
        "/comfyui/instances", json={"name": name, "ssh_connection": f"ssh root@{name}.example", **fields}
    )
    assert answer.status_code == 201, answer.text


def post(api: Api, path: str, body: object) -> TestResponse:
    return api.client.post(f"{BASE}{path}", json=body)


def config(api: Api) -> dict[str, Any]:
    document: dict[str, Any] = api.client.get(f"{BASE}/config").json
    return document


@pytest.mark.parametrize("prefix", [BASE, f"/api{BASE}"])
def test_workers_are_the_instances_without_the_master(api: Api, prefix: str) -> None:
    for name in ("one", "two", "three"):
        add(api, name, enabled=name != "three", local_port=28188 if name == "two" else None)
    document = api.client.get(f"{prefix}/config").json
    assert document["workers"] == [
        {
            "id": "two",
            "name": "two",
            "host": "127.0.0.1",
            "port": 28188,
            "cuda_device": None,
            "enabled": True,
            "extra_args": "",
            "type": "remote",
        },
        {
            "id": "three",
            "name": "three",
            "host": "three.example",
            "port": 18188,
            "cuda_device": None,
            "enabled": False,
            "extra_args": "",
            "type": "remote",
        },
    ]
    assert document["settings"]["worker_probe_concurrency"] == 8
    assert document["tunnel"]["status"] == "stopped"


def test_without_instances_there_are_no_workers(api: Api) -> None:
    assert config(api)["workers"] == []
    answer = api.client.post(f"{BASE}/clear_memory")
    assert answer.status_code == 400
    assert "instances add" in answer.json["error"]


def test_a_worker_is_changed_added_and_removed(api: Api) -> None:
    for name in ("one", "two"):
        add(api, name)
    assert post(api, "/config/update_worker", {"worker_id": "two", "enabled": False}).json == {
        "status": "success"
    }
    assert config(api)["workers"][0]["enabled"] is False
    new = {"worker_id": "9", "name": "Nine", "host": "https://nine.example/x", "port": 8188, "cuda_device": 0}
    assert post(api, "/config/update_worker", new).status_code == 200
    added = config(api)["workers"][1]
    assert (added["id"], added["host"], added["port"], added["enabled"]) == (
        "9",
        "nine.example",
        8188,
        False,
    )
    assert post(api, "/config/delete_worker", {"worker_id": "9"}).json == {
        "status": "success",
        "message": "Worker Nine deleted",
    }
    assert [each["id"] for each in config(api)["workers"]] == ["two"]


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("update_worker", {}, 400, "Missing worker_id"),
        (
            "update_worker",
            {"worker_id": "x", "name": "X"},
            404,
            "Worker x not found and missing required fields for creation",
        ),
        ("delete_worker", {}, 400, "Missing worker_id"),
        ("delete_worker", {"worker_id": "one"}, 404, "Worker one not found"),
        ("update_setting", {"key": "debug"}, 400, "Missing 'key' or 'value' in request"),
        ("update_setting", {"key": "colour", "value": 1}, 400, "Unknown setting: colour"),
        ("update_setting", {"key": ["debug"], "value": 1}, 400, "Unknown setting: ['debug']"),
    ],
)
def test_refusals_have_the_words_of_the_plugin(
    api: Api, path: str, body: object, status: int, error: str
) -> None:
    add(api, "one")
    answer = post(api, f"/config/{path}", body)
    assert (answer.status_code, answer.json) == (status, {"error": error})


def test_a_master_is_never_removed_as_a_worker(api: Api) -> None:
    for name in ("one", "two"):
        add(api, name)
    assert post(api, "/config", {"workers": []}).status_code == 200
    assert [each["id"] for each in api.client.get("/comfyui/instances").json["instances"]] == ["one"]


def test_a_whole_configuration_is_kept(api: Api) -> None:
    for name in ("one", "two"):
        add(api, name)
    changed = {
        "workers": [{"id": "two", "enabled": False}],
        "master": {"host": "http://m.example/", "name": "M"},
        "master_delegate_only": True,
        "worker_timeout_seconds": 90,
    }
    answer = post(api, "/config", changed).json
    assert answer["status"] == "success"
    assert answer["config"] == config(api)
    assert answer["config"]["master"] == {"host": "m.example", "name": "M"}
    assert answer["config"]["settings"]["master_delegate_only"] is True
    assert (
        post(api, "/config/update_master", {"host": None}).json["message"] == "Master configuration updated."
    )
    assert config(api)["master"] == {"host": "", "name": "M"}


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({"colour": 1}, ["Unknown field: colour"]),
        ({"debug": 1, "workers": {}}, ["debug: expected bool", "workers: expected list"]),
        ({"worker_timeout_seconds": 0}, ["worker_timeout_seconds: value 0 failed validation"]),
        ({"worker_timeout_seconds": "9"}, ["worker_timeout_seconds: expected int"]),
    ],
)
def test_a_wrong_configuration_names_each_field(api: Api, body: object, errors: list[str]) -> None:
    answer = post(api, "/config", body)
    assert answer.status_code == 400
    assert answer.json == {"status": "error", "error": errors, "message": "; ".join(errors)}
    assert config(api)["settings"]["debug"] is False


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"1"])
def test_a_body_that_is_no_object_is_refused(api: Api, body: bytes) -> None:
    for path in ("/config", "/config/update_worker", "/job_complete", "/prepare_job", "/check_file"):
        answer = api.client.post(f"{BASE}{path}", data=body, content_type="application/json")
        assert answer.status_code == 400, path
        assert re.match("Invalid JSON payload: |.* object", answer.json["error"]), path


def test_another_content_type_is_refused(api: Api) -> None:
    """A page of another site can send it without asking."""
    answer = api.client.post(f"{BASE}/config", data="{}", content_type="text/plain")
    assert answer.status_code == 400


def test_a_result_is_taken_for_a_prepared_job_alone(api: Api) -> None:
    result = {"job_id": "j", "worker_id": "w", "batch_idx": 0, "image": PNG, "is_last": True}
    answer = post(api, "/job_complete", result)
    assert (answer.status_code, answer.json) == (404, {"error": "job not initialized"})
    assert post(api, "/prepare_job", {}).json == {"error": "Missing multi_job_id"}
    assert post(api, "/prepare_job", {"multi_job_id": "j"}).json == {"status": "success"}
    for image in (PNG, f"data:image/png;base64,{PNG}"):
        assert post(api, "/job_complete", {**result, "image": image}).json == {"status": "success"}


@pytest.mark.parametrize(
    ("changed", "errors"),
    [
        (
            {"job_id": " ", "batch_idx": -1, "is_last": "yes"},
            [
                "job_id: expected non-empty string",
                "batch_idx: expected non-negative integer",
                "is_last: expected boolean",
            ],
        ),
        ({"worker_id": 3}, ["worker_id: expected non-empty string"]),
        ({"image": None}, ["image: expected non-empty base64 PNG string"]),
        ({"audio": "x"}, ["audio: expected object when provided"]),
    ],
)
def test_a_wrong_result_names_each_field(api: Api, changed: dict[str, Any], errors: list[str]) -> None:
    result = {"job_id": "j", "worker_id": "w", "batch_idx": 0, "image": PNG, "is_last": True}
    answer = post(api, "/job_complete", {**result, **changed})
    assert (answer.status_code, answer.json) == (400, {"errors": errors})


@pytest.mark.parametrize(
    ("image", "error"),
    [
        ("data:image/jpeg;base64,AAAA", "Field 'image' must be a PNG data URL when using data:* format."),
        ("data:image/png", "Field 'image' data URL is malformed."),
        ("é", "Field 'image' is not valid base64 PNG data."),
        (base64.b64encode(b"hello").decode(), "Failed to decode PNG image payload: it is no picture"),
        (PNG[:-8], "Failed to decode PNG image payload: it is cut off"),
    ],
)
def test_a_picture_that_cannot_be_decoded_is_told(api: Api, image: str, error: str) -> None:
    result = {"job_id": "j", "worker_id": "w", "batch_idx": 0, "image": image, "is_last": True}
    answer = post(api, "/job_complete", result)
    assert (answer.status_code, answer.json) == (500, {"error": error})


def test_only_the_newest_prepared_jobs_are_known() -> None:
    jobs = PreparedJobs()
    for number in range(MOST_JOBS + 1):
        jobs.add(str(number))
    jobs.require(str(MOST_JOBS))
    with pytest.raises(InvalidRequest):
        jobs.require("0")


def test_there_are_no_tile_jobs(api: Api) -> None:
    assert api.client.get(f"{BASE}/queue_status/x").json == {"exists": False, "job_id": "x"}
    assert api.client.get(f"{BASE}/job_status?multi_job_id=x").json == {"ready": False}
    for path in ("/heartbeat", "/request_image"):
        assert post(api, path, {"worker_id": "w"}).json == {"error": "Missing worker_id or multi_job_id"}
        answer = post(api, path, {"worker_id": "w", "multi_job_id": "m"})
        assert (answer.status_code, answer.json) == (404, {"error": "Job not found"})


def test_no_worker_is_a_process_of_this_machine(api: Api) -> None:
    for name in ("one", "two"):
        add(api, name)
    assert api.client.get(f"{BASE}/managed_workers").json == {"status": "success", "managed_workers": {}}
    answer = api.client.get(f"{BASE}/worker_log/two")
    assert (answer.status_code, answer.json) == (404, {"error": "Worker two not managed by UI"})
    assert post(api, "/stop_worker", {"worker_id": "two"}).json == {"error": "Worker not managed by UI"}
    assert post(api, "/launch_worker", {}).json == {"error": "Missing required field(s): worker_id"}
    assert "start its ComfyUI there" in post(api, "/launch_worker", {"worker_id": "two"}).json["error"]
    assert post(api, "/worker/clear_launching", {"worker_id": "x"}).json == {"error": "Worker x not found"}


def test_local_workers_are_those_with_a_local_port(api: Api) -> None:
    for name in ("one", "two", "three"):
        add(api, name, local_port={"two": 28188, "three": 28189}.get(name), enabled=name != "three")
    assert api.client.get(f"{BASE}/local-worker-status").json["worker_statuses"] == {
        "two": {
            "online": False,
            "enabled": True,
            "processing": False,
            "queue_count": 0,
            "error": "Unavailable",
        },
        "three": {"online": False, "enabled": False, "processing": False, "queue_count": 0},
    }


def test_an_unknown_route_is_told(api: Api) -> None:
    answer = api.client.get(f"{BASE}/nothing")
    assert (answer.status_code, answer.json) == (404, {"error": "There is no GET /distributed/nothing"})


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ([], "Expected a JSON object body"),
        ({"auto_prepare": 1}, "auto_prepare must be a boolean when provided"),
        ({}, "Field 'prompt' must be an object"),
        ({"workflow": {"prompt": []}}, "Field 'prompt' must be an object"),
        ({"prompt": GRAPH, "workers": "a"}, "Field 'workers' must be a list when provided"),
        ({"prompt": GRAPH}, "enabled_worker_ids required"),
        ({"prompt": GRAPH, "enabled_worker_ids": "a"}, "enabled_worker_ids must be a list of worker IDs"),
        (
            {"prompt": GRAPH, "enabled_worker_ids": [], "delegate_master": 1},
            "delegate_master must be a boolean when provided",
        ),
        ({"prompt": GRAPH, "enabled_worker_ids": []}, "client_id required"),
        ({"prompt": GRAPH, "enabled_worker_ids": [], "client_id": " "}, "client_id required"),
        (
            {"prompt": GRAPH, "enabled_worker_ids": [], "client_id": "c", "trace_execution_id": 1},
            "trace_execution_id must be a string when provided",
        ),
        (
            {"prompt": GRAPH, "enabled_worker_ids": [], "client_id": "c", "partial": ["keep"]},
            "partial must be one of: move, keep, fail",
        ),
    ],
)
def test_the_first_wrong_field_of_an_order_is_told(body: object, error: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_queue_request(body)
    assert str(raised.value) == error


def test_an_order_is_read_with_its_aliases() -> None:
    order = read_queue_request(
        {
            "workflow": {"prompt": GRAPH},
            "workers": ["a", {"id": 2}, {"name": "x"}, None, " "],
            "client_id": " c ",
            "delegate_master": True,
            "trace_execution_id": " t\n",
        }
    )
    assert (order.prompt, order.worker_ids, order.client_id) == (GRAPH, ("a", "2"), "c")
    assert (order.delegate_master, order.trace_id) == (True, "t")
    assert (
        read_queue_request(
            {"prompt": GRAPH, "enabled_worker_ids": [], "client_id": "c", "trace_execution_id": "a\nb"}
        ).trace_id
        is None
    )


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("a.png", FilePlace("a.png", "", "input")),
        ("x/y/a.png [output]", FilePlace("a.png", "x/y", "output")),
        ("x\\a.png [temp]", FilePlace("a.png", "x", "temp")),
        ("a [1].png", FilePlace("a [1].png", "", "input")),
    ],
)
def test_the_place_of_a_file_is_read(given: str, place: FilePlace) -> None:
    assert file_place(given) == place


@pytest.mark.parametrize("given", ["../a", "/etc/passwd", "a/../b", "", "a\0b", "x\\..\\a [output]"])
def test_no_file_out_of_the_directories_is_read(given: str) -> None:
    with pytest.raises(InvalidRequest):
        file_place(given)


def test_a_private_address_is_recommended() -> None:
    assert recommended_ip(["127.0.0.1", "8.8.8.8", "10.0.0.2", "192.168.1.5"]) == "192.168.1.5"
    assert recommended_ip(["127.0.0.1", "8.8.8.8"]) == "8.8.8.8"
    assert recommended_ip(["127.0.0.1"]) == "127.0.0.1"
    assert recommended_ip([]) is None


@pytest.mark.parametrize("told", [{}, {"platform": 3, "all_ips": ["x", 1], "hostname": []}])
def test_a_machine_that_tells_nonsense_breaks_nothing(told: dict[str, Any]) -> None:
    assert system_info(told)["platform"]["path_separator"] == ""
    assert network_info({**told, "devices": 0})["all_ips"] == []
