"""The API of comfyui-api with runs that are never executed: ids, probes, and what is kept of a prompt."""

from collections.abc import Callable
from typing import Any

import pytest

from comfyui_workflow.errors import ConnectionFailed
from comfyui_workflow.instances.state import Reachability
from comfyui_workflow.runs.events import RunCompleted, RunFailed
from comfyui_workflow.runs.job import decode_job, encode_job
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey
from comfyui_workflow.ssh.pool import Pool
from tests.api.conftest import Api
from tests.api.test_worker_comfyui import until

PROMPT: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}},
}
HOOK = "https://client.example/hook"


def submit(api: Api, prompt_id: str, **fields: Any) -> str:
    """Returns the id of the run."""
    body = {"prompt": PROMPT, "id": prompt_id, "webhook": HOOK, **fields}
    answer = api.client.post("/comfyui-api/prompt", json=body)
    assert answer.status_code == 202, answer.text
    return str(state(api, prompt_id)["workflow_id"])


def state(api: Api, prompt_id: str) -> dict[str, Any]:
    answer = api.client.get(f"/comfyui-api/prompt/{prompt_id}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


def test_of_two_prompts_with_one_id_the_newest_is_shown_and_both_are_interrupted(api: Api) -> None:
    first, second = submit(api, "x"), submit(api, "x")
    assert first != second
    assert state(api, "x")["workflow_id"] == second
    assert api.client.post("/comfyui-api/interrupt", json={"id": "x"}).json["interrupted"] == "success"
    for run_id in (first, second):
        assert api.journal.get(run_id).is_cancel_requested
    until(lambda: state(api, "x")["status"] == "cancelled")
    assert api.client.post("/comfyui-api/interrupt", json={"id": "x"}).status_code == 404


def test_a_prompt_of_another_api_is_none(api: Api) -> None:
    job_id = api.client.post("/run", json={"input": {"workflow": PROMPT}}).json["id"]
    assert api.client.get(f"/comfyui-api/prompt/{job_id}").status_code == 404
    assert api.client.post("/comfyui-api/interrupt", json={"id": job_id}).status_code == 404


def test_a_repeated_request_is_one_prompt(api: Api) -> None:
    headers = {"Idempotency-Key": "once"}
    body = {"prompt": PROMPT, "webhook": HOOK}
    answers = [api.client.post("/comfyui-api/prompt", json=body, headers=headers).json for _ in range(2)]
    assert answers[0]["id"] == answers[1]["id"]
    assert len(api.executor.started) == 1


def test_no_record_has_a_secret_of_the_request(api: Api) -> None:
    credentials = [
        {"url_pattern": "https://**", "auth": {"type": "basic", "username": "u", "password": "hid"}}
    ]
    run_id = _submit_with_secrets(api, credentials)
    job = api.jobs.get(run_id).job
    assert b"hid" not in encode_job(job)
    assert decode_job(encode_job(job)) == job
    assert "hid" not in str(state(api, "x"))


def _submit_with_secrets(api: Api, credentials: list[Any]) -> str:
    body = {
        "prompt": PROMPT,
        "id": "x",
        "webhook_v2": HOOK,
        "credentials": credentials,
        "http_upload": {"url_prefix": "https://u:hid@files.example/a?sig=hid"},
    }
    answer = api.client.post("/comfyui-api/prompt", json=body)
    assert answer.status_code == 202, answer.text
    assert "hid" not in answer.text
    return str(state(api, "x")["workflow_id"])


@pytest.mark.parametrize(
    ("code", "message", "beginning"),
    [
        ("invalid_workflow", "no such node", "Failed to queue prompt: no such node"),
        ("prompt_failed", "it broke", "Failed to get prompt outputs: it broke"),
        ("upload_failed", "403", "Failed to upload outputs: 403"),
    ],
)
def test_a_failure_has_its_words(api: Api, code: str, message: str, beginning: str) -> None:
    run_id = submit(api, "x")
    api.journal.record(run_id, RunFailed(code=code, message=message))
    until(lambda: state(api, "x")["status"] == "failed")
    assert state(api, "x")["error"] == beginning
    (webhook,) = api.outbox.deliveries(10)
    assert webhook.message_id is None


def test_the_queue_is_full_until_a_prompt_ends(api: Api) -> None:
    run_id = submit(api, "x")
    assert api.jobs.unfinished_count("comfyui-api") == 1
    api.journal.record(run_id, RunCompleted())
    until(lambda: api.jobs.unfinished_count("comfyui-api") == 0)
    done = state(api, "x")
    assert (done["status"], done["images"], done["filenames"]) == ("completed", [], [])


def test_probes_need_no_instance_list_and_docs_are_there(api: Api) -> None:
    assert api.client.get("/comfyui-api/health").json["status"] == "healthy"
    assert api.client.get("/comfyui-api/ready").status_code == 503
    assert api.client.get("/comfyui-api/ready", headers={"Comfyui-Target": "ssh root@h"}).status_code == 200
    assert set(api.client.get("/comfyui-api/docs/json").json["paths"]) >= {"/comfyui-api/prompt"}


def test_a_probe_without_the_token_connects_to_nothing(make_api: Callable[..., Api]) -> None:
    tried = list[str]()

    def refuse(key: InstanceKey) -> ComfyUISession:
        tried.append(key.address.label)
        raise ConnectionFailed("it cannot be reached")

    api = make_api(api_token="secret", sessions=Pool(refuse), comfyui_api_target="any", ssh_key_dirs="/")
    authorized = {"Authorization": "Bearer secret"}
    one = {"name": "gpu", "ssh_connection": "ssh -p 40738 root@198.53.64.194"}
    assert api.client.post("/comfyui/instances", json=one, headers=authorized).status_code == 201
    for headers in ({}, {"Comfyui-Target": "gpu"}, {"Authorization": "Bearer wrong"}):
        assert api.client.get("/comfyui-api/ready", headers=headers).status_code == 200
    assert api.client.get("/comfyui-api/ready", headers={"Comfyui-Target": "none"}).status_code == 200
    assert not tried
    assert api.instances.monitors.state("gpu").reachability is Reachability.UNKNOWN
    assert api.client.get("/comfyui-api/ready", headers=authorized).status_code == 503
    until(lambda: tried)
    assert api.client.get("/comfyui-api/ready").status_code == 503
