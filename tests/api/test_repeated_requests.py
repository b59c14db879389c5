"""A request with an Idempotency-Key that is sent again returns what the first one created."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.events import RunCancelled
from comfyui_workflow.stores.files.jobs import FileJobStore
from comfyui_workflow.stores.memory import MemoryRunStore
from tests.api.conftest import Api
from tests.api.test_workflow import GRAPH, SSH
from tests.checked_client import checked

Json = dict[str, Any]
Repeated = Callable[..., str]
RUN = {"ssh_connection": SSH, "workflow": GRAPH}
BATCH = {**RUN, "rows": [{}, {"2.filename_prefix": "y"}]}
JOB = {"input": {"workflow": GRAPH}}
REQUESTS = {
    "run": ("/comfyui/workflow/execute", RUN, "workflow_id"),
    "batch": ("/comfyui/workflow/batch", BATCH, "batch_id"),
    "job": ("/v2/any/run", JOB, "id"),
}


@pytest.fixture(params=REQUESTS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def sent(api: Api, kind: str, key: str | None = "a key", **changes: Any) -> str:
    """Returns the id that the response has."""
    path, body, name = REQUESTS[kind]
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = api.client.post(path, json={**body, **changes}, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json[name])


def test_the_same_request_is_carried_out_once(api: Api, kind: str) -> None:
    first = sent(api, kind)
    started = list(api.executor.started)
    assert sent(api, kind) == first
    assert api.executor.started == started
    others = [sent(api, kind, "another"), sent(api, kind, None), sent(api, kind, None)]
    assert len({first, *others}) == 4


def test_another_body_is_another_request(api: Api, kind: str) -> None:
    changed = {"input": {"workflow": GRAPH, "images": []}} if kind == "job" else {"priority": 3}
    assert sent(api, kind) != sent(api, kind, **changed)


def test_a_batch_returns_all_its_runs_again(api: Api) -> None:
    headers = {"Idempotency-Key": "a key"}
    first, second = (
        api.client.post("/comfyui/workflow/batch", json=BATCH, headers=headers).json for _ in range(2)
    )
    assert first == second
    assert len(second["workflow_ids"]) == 2


def test_what_it_names_may_be_gone_by_then(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "flow.json"
    file.write_text(json.dumps(GRAPH))
    instance = api.instances.directory.add({"name": "gpu", "ssh_connection": SSH})
    bodies: Json = {
        "execute": {"ssh_connection": "any", "workflow_file": str(file)},
        "batch": {"ssh_connection": "any", "workflow_file": str(file), "rows": [{}]},
    }

    def ids() -> list[str]:
        answers = [
            api.client.post(f"/comfyui/workflow/{path}", json=body, headers={"Idempotency-Key": "k"}).json
            for path, body in bodies.items()
        ]
        return [answer.get("workflow_id") or answer["batch_id"] for answer in answers]

    before = ids()
    file.unlink()
    api.instances.directory.remove(instance.id)
    assert ids() == before


def test_many_at_once_create_one(api: Api, kind: str) -> None:
    barrier = threading.Barrier(8)

    def send(_: int) -> str:
        client = checked(api.app)
        barrier.wait()
        return sent(replace(api, client=client), kind)

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(send, range(8)))) == 1
    assert len(set(api.executor.started)) == len(api.executor.started) == (2 if kind == "batch" else 1)


def test_a_sync_job_is_not_the_answer_to_an_async_one(api: Api) -> None:
    headers = {"Idempotency-Key": "a key"}
    paths = ("/v2/any/run", "/v2/any/runsync?wait=1000", "/v2/any/runsync?wait=1000")
    first, second, third = (api.client.post(path, json=JOB, headers=headers).json["id"] for path in paths)
    assert second == third != first
    assert second.startswith("sync-")


def test_a_job_that_could_not_be_saved_is_created_by_the_next_request(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(FileJobStore, "add", _full)
        answer = api.client.post("/run", json=JOB, headers={"Idempotency-Key": "a key"})
        assert answer.status_code == 507
    job_id = api.client.post("/run", json=JOB, headers={"Idempotency-Key": "a key"}).json["id"]
    assert api.executor.started == [job_id]


def test_a_run_whose_job_a_crash_has_lost_gets_its_job(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    headers = {"Idempotency-Key": "a key"}
    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr(FileJobStore, "add", crash)
        api.client.post("/run", json=JOB, headers=headers)
    (run,) = api.service.unfinished()
    api.service.resume()
    answer = api.client.post("/run", json=JOB, headers=headers).json
    assert answer["id"] == run.run_id
    assert api.executor.started == [run.run_id]
    assert api.client.get(f"/status/{run.run_id}").json["status"] == "IN_QUEUE"


def test_a_batch_that_could_not_be_saved_is_created_by_the_next_request(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(MemoryRunStore, "add_all", _full)
        answer = api.client.post("/comfyui/workflow/batch", json=BATCH, headers={"Idempotency-Key": "a key"})
        assert answer.status_code == 507
    assert sent(api, "batch") == sent(api, "batch")


def test_a_cancelled_run_is_still_the_answer(api: Api) -> None:
    run_id = sent(api, "run")
    api.journal.record(run_id, RunCancelled())
    assert sent(api, "run") == run_id


def _full(*_: object) -> None:
    raise StoreError("The disk is full")
