"""Whatever method, header and body comes to the routes of jobs and of webhooks, with jobs in every state: an
answer in JSON that says what happened, never a bug of ours."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from comfyui_workflow.api.mount import ApiServices
from comfyui_workflow.app import create_flask
from comfyui_workflow.runs.events import ExecutionStarted, OutputsFound, RunCompleted, RunFailed
from comfyui_workflow.runs.job import record_name
from comfyui_workflow.runs.model import OutputFile
from comfyui_workflow.settings import load_settings
from comfyui_workflow.stores.journal import RunJournal
from comfyui_workflow.stores.memory import MemoryRunStore
from tests.api.conftest import IdleExecutor, parts_of
from tests.checked_client import checked
from tests.fuzz.effort import effort
from tests.fuzz.test_routes import GET, METHODS, SENTENCES, TYPES, headers
from tests.fuzz.values import texts
from tests.runs.test_state_machine import GRAPH

LIMIT_S = 10
PLACES = ["", "/v2/any", "/v2/gpu", "/v2/big", "/v2/none", "/v2/%00", "/v2/%ff", "/v2/" + "x" * 5000, "/v2"]
WORDS = [
    "/run",
    "/runsync",
    "/purge-queue",
    "/health",
    "/status",
    "/",
    *(
        f"/{word}/{job}"
        for word in ("status", "status-sync", "stream", "cancel", "retry")
        for job in (
            "{queued}",
            "{completed}",
            "{failed}",
            "{cancelled}",
            "{sync}",
            "x",
            "..%2fx",
            "%00",
            "%ff",
        )
    ),
]
ROUTES = [place + word for place in PLACES for word in WORDS]
WEBHOOKS = [
    f"/comfyui/webhooks{rest}"
    for rest in (
        "",
        "/",
        "/{webhook}",
        "/{webhook}/resend",
        "/x",
        "/x/resend",
        "/..%2fx",
        "/%00",
        "/%ff/resend",
    )
]
ORDER = json.dumps({"input": {"workflow": GRAPH}}).encode()
BODIES = [ORDER, b"", b"{}", b"[]", b"null", b'{"input": 1}', b"--x\r\n", b"\xff", b"[" * 5000]
numbers = st.sampled_from(
    ["", "0", "1", "1000", "300001", "-1", "٣", "1e3", "0" * 5000, "9" * 5000, "true", "%ff", "%00", "x"]
)
queries = st.lists(
    st.tuples(
        st.sampled_from(["wait", "ttl", "limit", "before", "workflow_id", "x"]),
        numbers | texts.map(lambda text: text.encode(errors="replace").decode()),
    ),
    max_size=3,
)


@dataclass(frozen=True, kw_only=True)
class Api:
    client: FlaskClient
    ids: dict[str, str]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Requests that wait are answered at once, as by a server that is about to stop."""
    directory = tmp_path_factory.mktemp("worker")
    settings = load_settings(data_dir=directory, state_file=directory / "state.json", max_upload_mb=1)
    store = MemoryRunStore()
    journal = RunJournal(store)
    parts = parts_of(settings, journal, store, IdleExecutor())
    parts.instances.directory.add(
        {"name": "gpu", "ssh_connection": "ssh root@192.0.2.1", "tags": ["big"], "enabled": False}
    )
    client = checked(create_flask(parts))
    parts.jobs.start()
    ids = jobs_in_every_state(client, parts, journal, directory)
    parts.jobs.stop()
    ids["webhook"] = parts.outbox.add("https://client.example/hook", {"id": "x"}, "run").delivery_id
    yield Api(client=client, ids=ids)
    parts.instances.monitors.close(5)


def jobs_in_every_state(
    client: FlaskClient, parts: ApiServices, journal: RunJournal, directory: Path
) -> dict[str, str]:
    picture = directory / "picture.png"
    picture.write_bytes(b"picture")
    ids = {state: ordered(client, "/run") for state in ("queued", "completed", "failed", "cancelled")}
    ids["sync"] = ordered(client, "/runsync?wait=1000")
    journal.record(ids["completed"], ExecutionStarted())
    outputs = (OutputFile(filename="picture.png", local_path=str(picture)),)
    journal.record(ids["completed"], OutputsFound(outputs=outputs))
    journal.record(ids["completed"], RunCompleted())
    journal.record(ids["failed"], RunFailed(code="prompt_failed", message="no"))
    client.post(f"/cancel/{ids['cancelled']}")
    deadline_s = time.monotonic() + LIMIT_S
    while not all(parts.jobs.get(ids[state]).job.final for state in ("completed", "failed", "cancelled")):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert record_name(ids["sync"]) != ids["sync"]
    return ids


def ordered(client: FlaskClient, path: str) -> str:
    answer = client.post(path, data=ORDER, content_type="application/json")
    assert answer.status_code == 200, answer.text
    return str(answer.json["id"])


def check(answer: TestResponse) -> None:
    """Jobs say `error`, webhooks and whoever guards the door say `message` and `code`."""
    assert answer.status_code < 500, answer.text
    if answer.request.method == "HEAD" or (answer.request.method == "OPTIONS" and answer.status_code < 300):
        return
    if answer.status_code == 304:
        assert "/stream/" not in answer.request.path, "what is told once must be told"
        return
    assert answer.mimetype == "application/json", answer.text
    document = json.loads(answer.text, parse_constant=pytest.fail)
    if answer.status_code == 200:
        return
    assert answer.status_code in SENTENCES, answer.text
    said = document.get("error") or (document["message"] if document["code"] else "")
    assert said
    assert "Traceback" not in said


@effort(600)
@given(
    method=st.sampled_from(["GET", "POST"]) | st.sampled_from(METHODS),
    route=st.sampled_from(ROUTES) | st.sampled_from(WEBHOOKS),
    query=queries,
    headers=headers,
    content_type=st.sampled_from(["application/json", *TYPES]),
    body=st.sampled_from(BODIES) | st.binary(max_size=40),
)
@example(**{**GET, "query": []}, route="/comfyui/webhooks/{webhook}")
@example(**{**GET, "query": [("before", "{webhook}"), ("limit", "1")]}, route="/comfyui/webhooks")
@example(**{**GET, "query": [], "headers": {"Range": "bytes=0-3"}}, route="/status/{completed}")
@example(**{**GET, "query": [], "headers": {"If-None-Match": "*"}}, route="/stream/{completed}")
def test_every_route_answers_in_json(  # noqa: PLR0917 - hypothesis names them
    api: Api,
    method: str,
    route: str,
    query: list[tuple[str, str]],
    headers: dict[str, str],
    content_type: str,
    body: bytes,
) -> None:
    answer = api.client.open(
        route.format(**api.ids) if "{" in route else route,
        method=method,
        query_string=query,
        headers={"Content-Type": content_type, **headers},
        data=body,
    )
    answer.get_data()
    check(answer)


@effort(150)
@given(data=st.data())
def test_a_job_is_asked_for_in_any_order(api: Api, data: st.DataObject) -> None:
    """The effect of one request on a job is no bug of the next request."""
    job_id = api.ids[data.draw(st.sampled_from(["queued", "completed", "failed", "cancelled", "sync"]))]
    words = ["status", "status-sync", "stream", "cancel", "retry"]
    for word in data.draw(st.lists(st.sampled_from(words), max_size=6)):
        answer = api.client.post(f"/v2/any/{word}/{job_id}?wait=1000")
        answer.get_data()
        check(answer)
        if answer.status_code == 200:
            assert answer.json["id"] == job_id
    check(api.client.post("/purge-queue"))
    check(api.client.get("/v2/any/health"))
