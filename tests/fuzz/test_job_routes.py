"""Whatever is sent to the routes of jobs: an answer in JSON that says what happened, never a bug of ours."""

import base64
import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from comfyui_workflow.api.runpod.routes import BARE
from comfyui_workflow.app import create_flask
from comfyui_workflow.runs.job import decode_job
from comfyui_workflow.settings import load_settings
from comfyui_workflow.stores.files.runs import FileRunStore
from comfyui_workflow.stores.journal import RunJournal
from tests.api.conftest import IdleExecutor, parts_of
from tests.checked_client import checked
from tests.fuzz.effort import effort
from tests.fuzz.values import Json, mutations, texts, values, wire
from tests.runs.test_state_machine import GRAPH

SENTENCES = (400, 404, 405, 409, 413, 415)
BODY = {
    "input": {
        "workflow": GRAPH,
        "images": [
            {"name": "a.png", "image": "data:image/png;base64," + base64.b64encode(b"x" * 30).decode()},
            {"name": "b.png", "image": "https://pictures.example/b.png"},
        ],
        "comfy_org_api_key": "key",
    },
    "webhook": "https://client.example/hook?secret",
    "policy": {"executionTimeout": 5000, "ttl": 10_000, "lowPriority": True},
    "s3Config": {
        "endpointUrl": "https://s3.example/b",
        "accessId": "i",
        "accessSecret": "s",
        "bucketName": "b",
    },
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    directory = tmp_path_factory.mktemp("jobs")
    settings = load_settings(data_dir=directory, state_file=directory / "state.json", max_upload_mb=1)
    store = FileRunStore(settings.data_dir, settings.state_file)
    store.open()
    parts = parts_of(settings, RunJournal(store), store, IdleExecutor())
    yield checked(create_flask(parts))
    for record in (directory / "jobs").glob("comfyui_workflow_*.json"):
        decode_job(record.read_bytes())
    store.close()


def check(answer: TestResponse) -> None:
    """An accepted job can be read."""
    assert answer.status_code < 500, answer.text
    if answer.status_code == 308:  # to the same path without empty parts
        return
    assert answer.mimetype == "application/json", answer.text
    document = json.loads(answer.text, parse_constant=pytest.fail)
    if answer.status_code == 200:
        return
    assert answer.status_code in SENTENCES
    assert list(document) == ["error"]
    assert document["error"]
    assert "Traceback" not in document["error"]


@effort(300)
@given(body=mutations(BODY))
def test_any_order(client: FlaskClient, body: Json) -> None:
    answer = client.post("/v2/any/run", data=wire(body), content_type="application/json")
    check(answer)
    if answer.status_code == 200:
        job_id = answer.json["id"]
        job = client.get(f"/status/{job_id}").json
        assert job["id"] == job_id
        assert job["status"] in ("IN_QUEUE", "IN_PROGRESS", "FAILED")  # an invalid order fails soon


@effort(60)
@given(given=values)
def test_any_input(client: FlaskClient, given: Json) -> None:
    for body in ({"input": given}, {"input": wire(given)}, given):
        check(client.post("/run", data=wire(body), content_type="application/json"))


@effort(60)
@given(endpoint=texts, job_id=texts, wait=texts)
def test_any_path(client: FlaskClient, endpoint: str, job_id: str, wait: str) -> None:
    endpoint, job_id = (quote(part, safe="", errors="replace") or "x" for part in (endpoint, job_id))
    for path in (*(f"/v2/{endpoint}{bare}" for bare in BARE), f"/v2/{endpoint}/health"):
        for url in (path, f"{path}/{job_id}"):
            query = {"wait": wait.encode(errors="replace")}
            check(client.post(url, json={}, query_string=query))
            check(client.get(url, query_string=query))


@effort(60)
@given(body=st.binary(max_size=200), content_type=st.sampled_from(["application/json", "text/plain", ""]))
def test_any_bytes(client: FlaskClient, body: bytes, content_type: str) -> None:
    for path in ("/run", "/v2/any/runsync", "/cancel/x", "/v2/any/purge-queue"):
        check(client.post(path, data=body, content_type=content_type))
