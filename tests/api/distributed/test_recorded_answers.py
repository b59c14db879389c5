"""The answers of this server beside the recorded ones of ComfyUI-Distributed: the same status and the same
body, but for the differences that are listed here with their reasons."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from comfyui_workflow.api.comfyui_distributed.configuration import DEFAULT_SETTINGS
from tests.api.conftest import Api

RECORDED = Path(__file__).parent / "recorded"
Json = dict[str, Any]

OTHER_WORDS = {
    "not JSON": "the message says what is wrong with the body in our words",
    "empty body": "as above",
    "not PNG": "the message has an address of Python's memory there",
    "tile not an image": "as above",
    "deleted, name null": "an instance keeps its name when it is null",
    "wrong method": "405 with `Allow`, where the plugin answers 404 without a body",
    "no id": "404 with a body, where the plugin has none",
}
"""Only the status is compared, if it is not in `OTHER_STATUS` too."""
OTHER_STATUS = {
    "a list": 400,
    "not JSON": 400,
    "empty body": 400,
    "wrong method": 405,
    "batch size no number": 400,
    "bad index": 400,
    "not an image": 404,
}
"""A body that cannot be read is no error of the server; the picture of an unknown job is not decoded."""
NOT_SENT = {
    "a number does not find a text id": "ids are compared as texts, so it would change the worker",
    "not running": "there is no tunnel here",
}


NO_LISTS = {"workers": None, "settings": None}


def exchanges(name: str) -> list[Json]:
    return [json.loads(line) for line in (RECORDED / f"{name}.jsonl").read_text().splitlines()]


def replayed(client: FlaskClient, given: Json) -> TestResponse:
    content: Json = {}
    if "json" in given:
        content = {"json": given["json"]}
    elif "text" in given:
        content = {"data": given["text"], "content_type": "application/json"}
    elif "form" in given:
        fields = {name: _field(value) for name, value in given["form"].items()}
        content = {"data": fields, "content_type": "multipart/form-data"}
    return client.open(given["path"], method=given["method"], **content)


def _field(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return io.BytesIO(base64.b64decode(value["base64"])), value["file"]


def check(answer: TestResponse, line: Json) -> None:
    note, where = line["note"], f"{line['request']['path']}: {line['note']}: {answer.text}"
    assert answer.status_code == OTHER_STATUS.get(note, line["status"]), where
    if note not in OTHER_WORDS and note not in OTHER_STATUS:
        assert compared(answer.json) == compared(line["body"]), where


def compared(body: Any) -> Any:
    """Leaves out what a worker here has otherwise, its address, and defaults of settings, which the plugin
    shows only after its next start."""
    if not isinstance(body, dict) or not body.keys() & {"workers", "config"}:
        return body
    config = body.get("config", body)
    workers = [(str(each["id"]), each["enabled"]) for each in config["workers"] if each["id"] != "master"]
    settings = {**DEFAULT_SETTINGS, **config["settings"]}
    return {**body, "config": {**config, "workers": workers, "settings": settings}, **NO_LISTS}


def add(client: FlaskClient, name: str) -> None:
    body = {"name": name, "ssh_connection": f"ssh {name}.example"}
    assert client.post("/comfyui/instances", json=body).status_code == 201


@pytest.mark.parametrize("name", ["config", "tiles", "workers"])
def test_answers_are_those_of_the_plugin(api: Api, name: str) -> None:
    add(api.client, "master")
    if name == "workers":
        for number in range(1, 6):
            worker = {"worker_id": str(number), "name": f"w{number}", "port": 8188, "cuda_device": 0}
            assert api.client.post("/distributed/config/update_worker", json=worker).status_code == 200
    lines = exchanges(name)
    assert len(lines) > 10
    for line in lines:
        if line["note"] not in NOT_SENT:
            check(replayed(api.client, line["request"]), line)


def test_results_are_answered_as_by_the_plugin(api: Api) -> None:
    add(api.client, "master")
    lines = [*exchanges("jobs"), *exchanges("job_complete")]
    assert len(lines) > 40
    for line in lines:
        check(replayed(api.client, line["request"]), line)


def test_orders_are_refused_as_by_the_plugin(api: Api) -> None:
    """The master does not answer here, so what only it can refuse is accepted and fails later."""
    add(api.client, "master")
    lines = [line for line in exchanges("queue") if line["status"] == 400 or line["note"] == "empty prompt"]
    assert len(lines) > 15
    for line in lines:
        check(replayed(api.client, line["request"]), line)


def test_orders_are_accepted_as_by_the_plugin(api: Api) -> None:
    add(api.client, "master")
    lines = [line for line in exchanges("queue") if line["status"] == 200]
    assert len(lines) > 5
    for line in lines:
        answer = replayed(api.client, line["request"])
        assert answer.status_code == 200, f"{line['note']}: {answer.text}"
        assert answer.json.keys() == {*line["body"], "workflow_id"}
        assert answer.json["worker_count"] == line["body"]["worker_count"]
