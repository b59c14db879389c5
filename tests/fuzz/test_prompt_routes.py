"""Whatever is sent to the routes of comfyui-api: an answer in JSON in one of its shapes, never a bug."""

import base64
import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from comfyui_workflow.app import create_flask
from comfyui_workflow.runs.job import decode_job
from comfyui_workflow.settings import load_settings
from comfyui_workflow.stores.files.runs import FileRunStore
from comfyui_workflow.stores.journal import RunJournal
from tests.api.conftest import IdleExecutor, parts_of
from tests.fuzz.effort import effort
from tests.fuzz.values import Json, mutations, texts, values, wire

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"x" * 40).decode()
SHAPES = ({"error"}, {"error", "location"}, {"statusCode", "error", "message"}, {"id", "interrupted"})
FASTIFY = {"statusCode", "code", "error", "message"}
BODY = {
    "id": "an id",
    "prompt": {
        "1": {"class_type": "LoadImage", "inputs": {"image": PNG}},
        "2": {"class_type": "VHS_LoadImages", "inputs": {"directory": ["https://a.example/b.png", PNG]}},
        "3": {"class_type": "LoadVideo", "inputs": {"file": "s3://bucket/a.mp4", "video": "a.mp4 [output]"}},
        "4": {"class_type": "LoadAudio", "inputs": {"audio": "https://u:p@a.example/b?sig=c"}},
        "5": {"class_type": "LoraLoader", "inputs": {"lora_name": "https://u:p@models.example/a?k=c"}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a/b"}},
    },
    "webhook_v2": "https://client.example/hook",
    "convert_output": {"format": "jpeg", "options": {"quality": 80, "mozjpeg": True}},
    "credentials": [{"url_pattern": "https://a.example/*", "auth": {"type": "bearer", "token": "t"}}],
    "s3": {"bucket": "bucket", "prefix": "p", "async": True},
}

DOWNLOAD = {
    "url": "https://u:p@models.example/a.safetensors?k=c",
    "model_type": "checkpoints",
    "filename": "a/b.safetensors",
    "wait": True,
    "auth": {"type": "basic", "username": "u", "password": "p"},
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    directory = tmp_path_factory.mktemp("prompts")
    settings = load_settings(data_dir=directory, state_file=directory / "state.json", max_upload_mb=1)
    store = FileRunStore(settings.data_dir, settings.state_file)
    store.open()
    yield create_flask(parts_of(settings, RunJournal(store), store, IdleExecutor())).test_client()
    for record in (directory / "jobs").glob("comfyui_workflow_*.json"):
        decode_job(record.read_bytes())
    store.close()


def check(answer: TestResponse) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code == 308:
        return
    assert answer.mimetype == "application/json", answer.text
    document = json.loads(answer.text, parse_constant=pytest.fail)
    if answer.status_code >= 400:
        assert document.keys() in (*SHAPES, FASTIFY), document
        assert "Traceback" not in answer.text


def send(client: FlaskClient, body: Json) -> TestResponse:
    """Always with a webhook: no run ends here, so a synchronous prompt would wait for ever."""
    if isinstance(body, dict):
        body = {**body, "webhook_v2": body.get("webhook_v2") or BODY["webhook_v2"]}
    return client.post("/comfyui-api/prompt", data=wire(body), content_type="application/json")


def test_the_body_itself_is_taken(client: FlaskClient) -> None:
    answer = send(client, BODY)
    assert answer.status_code == 202, answer.text
    assert '"t"' not in answer.text


@effort(300)
@given(body=mutations(BODY))
def test_any_prompt(client: FlaskClient, body: Json) -> None:
    answer = send(client, body)
    check(answer)
    if answer.status_code == 202:
        prompt_id = quote(answer.json["id"], safe="", errors="replace")
        state = client.get(f"/comfyui-api/prompt/{prompt_id}")
        assert state.status_code in (200, 404, 308), state.text  # an id with slashes cannot be in a path


@effort(60)
@given(given=values, graph=values)
def test_any_value(client: FlaskClient, given: Json, graph: Json) -> None:
    for body in (given, {"prompt": given}, {"prompt": {"1": {"class_type": "LoadImage", "inputs": graph}}}):
        check(send(client, body))
    for body in (given, {"id": given}):
        check(client.post("/comfyui-api/interrupt", data=wire(body), content_type="application/json"))
    check(client.post("/comfyui-api/download", data=wire(given), content_type="application/json"))


@effort(100)
@given(body=mutations(DOWNLOAD))
def test_any_download(client: FlaskClient, body: Json) -> None:
    answer = client.post("/comfyui-api/download", data=wire(body), content_type="application/json")
    check(answer)
    assert answer.status_code == 400


@effort(60)
@given(prompt_id=texts, target=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
def test_any_path_and_target(client: FlaskClient, prompt_id: str, target: str) -> None:
    quoted = quote(prompt_id, safe="", errors="replace") or "x"
    check(client.get(f"/comfyui-api/prompt/{quoted}"))
    body = {"prompt": BODY["prompt"], "webhook": "https://client.example/"}
    check(client.post("/comfyui-api/prompt", json=body, headers={"Comfyui-Target": target}))
    ready = client.get("/comfyui-api/ready", headers={"Comfyui-Target": target})
    assert ready.status_code in (200, 400, 503), ready.text


@effort(60)
@given(body=st.binary(max_size=200), content_type=st.sampled_from(["application/json", "text/plain", ""]))
def test_any_bytes(client: FlaskClient, body: bytes, content_type: str) -> None:
    for path in ("/comfyui-api/prompt", "/comfyui-api/interrupt"):
        check(client.post(path, data=body, content_type=content_type))
