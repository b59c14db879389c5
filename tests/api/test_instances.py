"""/comfyui/instances over HTTP: the registry, and requests to sandboxes, to a dead and to a frozen
instance."""

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
import requests
from werkzeug.test import TestResponse

from comfyui_workflow.api.native.instances import tail
from comfyui_workflow.app import open_session
from comfyui_workflow.runs.events import PromptPrepared
from comfyui_workflow.runs.model import RunRequest
from comfyui_workflow.runs.target import target_of_record
from comfyui_workflow.settings import load_settings
from comfyui_workflow.ssh.pool import Pool
from comfyui_workflow.workflows.model import Workflow
from tests.api.conftest import Api
from tests.integration.graphs import slow
from tests.sandbox_process import SandboxProcess

BASE = "/comfyui/instances"
SSH = "ssh -p 40738 root@198.53.64.194"
WAIT_S = 20.0


def added(api: Api, name: str = "Primary", **fields: Any) -> dict[str, Any]:
    answer = api.client.post(BASE, json={"name": name, "ssh_connection": SSH, **fields})
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json["instance"]
    return document


def refused(answer: TestResponse, status: int, code: str) -> str:
    assert (answer.status_code, answer.json["success"], answer.json["code"]) == (status, False, code)
    return str(answer.json["message"])


def test_one_is_added_listed_changed_and_removed(api: Api) -> None:
    assert api.client.get(BASE).json == {"success": True, "instances": [], "trouble": None}
    document = added(api, tags=["big"], price_per_hour=0.4)
    assert (document["id"], document["comfyui_port"], document["tags"]) == ("primary", 18188, ["big"])
    assert document["state"]["reachability"] == "unknown"
    assert api.client.get(BASE).json["instances"] == [document]
    assert api.client.get(f"{BASE}/PRIMARY").json["instance"] == document
    changed = api.client.patch(f"{BASE}/primary", json={"name": "Second", "tags": None}).json
    assert (changed["instance"]["id"], changed["instance"]["tags"]) == ("primary", [])
    assert changed["unfinished_runs"] == 0
    assert api.client.delete(f"{BASE}/second").json["id"] == "primary"
    assert api.client.get(BASE).json["instances"] == []


def test_what_of_the_ssh_string_is_ignored_is_told(api: Api) -> None:
    answer = api.client.post(BASE, json={"name": "a", "ssh_connection": f"{SSH} -A"})
    assert "-A is ignored" in answer.json["notices"][0]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "ssh_connection"),
        ({"ssh_connection": SSH}, "name"),
        ({"name": "a", "ssh_connection": SSH, "port": 1}, "port"),
        ({"name": "a", "ssh_connection": SSH, "id": "a"}, "id"),
        ({"name": "costs", "ssh_connection": SSH}, "name"),
        ({"name": "primary", "ssh_connection": SSH}, "name"),
        ({"name": "a", "ssh_connection": "ssh -F x root@h"}, "ssh_connection"),
        ({"name": "a", "ssh_connection": SSH, "tags": "big"}, "tags"),
    ],
)
def test_a_refusal_names_the_field_and_changes_nothing(api: Api, body: dict[str, Any], field: str) -> None:
    added(api)
    answer = api.client.post(BASE, json=body)
    assert answer.status_code == 400
    assert answer.json["message"].startswith(field)
    if "name" in body and body["name"] != "primary":
        assert api.client.patch(f"{BASE}/primary", json=body).status_code == 400
    assert [each["name"] for each in api.client.get(BASE).json["instances"]] == ["Primary"]


ROUTES = [
    ("GET", ""),
    ("PATCH", ""),
    ("DELETE", ""),
    ("GET", "/system_stats"),
    ("GET", "/queue"),
    ("GET", "/logs"),
    ("POST", "/free"),
    ("POST", "/interrupt"),
    ("POST", "/connect"),
    ("POST", "/disconnect"),
    ("POST", "/forget-host-key"),
    ("POST", "/accept-host-key"),
]


@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_who_is_not_there_is_not_found(api: Api, method: str, route: str) -> None:
    answer = api.client.open(f"{BASE}/nobody{route}", method=method, json={})
    assert "nobody" in refused(answer, 404, "instance_not_found")


@pytest.mark.parametrize(("method", "route"), ROUTES[3:8])
def test_one_that_cannot_be_reached_says_why(api: Api, method: str, route: str) -> None:
    added(api)
    answer = api.client.open(f"{BASE}/primary{route}", method=method)
    assert "cannot be reached" in refused(answer, 502, "connection_failed")


def test_names_are_text_in_urls_too(api: Api) -> None:
    name = "50% <b>größer?#"
    added(api, name=name)
    encoded = "".join(f"%{byte:02X}" for byte in name.encode())
    assert api.client.get(f"{BASE}/{encoded}").json["instance"]["name"] == name


def test_routes_that_there_are_not_are_worded_by_this_api(api: Api) -> None:
    refused(api.client.get(f"{BASE}/a/b/c"), 404, "http")
    answer = api.client.put(f"{BASE}/a")
    refused(answer, 405, "http")
    assert "PATCH" in answer.headers["Allow"]
    refused(api.client.get("/comfyui/instancesx"), 404, "http")


def test_pages_of_other_sites_change_nothing(api: Api) -> None:
    headers = {"Origin": "https://evil.example"}
    refused(api.client.post(BASE, json={"name": "a", "ssh_connection": SSH}, headers=headers), 403, "refused")
    refused(api.client.delete(f"{BASE}/a", headers=headers), 403, "refused")


def test_a_broken_file_is_told_and_kept(api: Api) -> None:
    added(api)
    file = Path(api.settings.instances_path)
    file.write_text("{")
    answer = api.client.patch(f"{BASE}/primary", json={"name": "x"})
    assert "Nothing was changed" in refused(answer, 409, "instances_file")
    listed = api.client.get(BASE).json
    assert str(file) in listed["trouble"]
    assert [each["name"] for each in listed["instances"]] == ["Primary"]
    assert file.read_text() == "{"


def request_for(instance_id: str | None) -> RunRequest:
    return RunRequest(
        target=target_of_record("primary" if instance_id else SSH, instance_id),
        workflow=Workflow(graph={"1": {"class_type": "SaveImage", "inputs": {}}}),
        workflow_name="a",
        output_dir="/tmp",
        comfyui_port=18188,
        comfyui_input_dir="/in",
        comfyui_output_dir="/out",
    )


def test_how_many_runs_name_it_is_told(api: Api) -> None:
    added(api)
    service = api.service
    for instance_id in ("primary", "primary", "other", None):
        service.submit(request_for(instance_id))
    assert api.client.patch(f"{BASE}/primary", json={"enabled": False}).json["unfinished_runs"] == 2
    assert api.client.delete(f"{BASE}/primary").json["unfinished_runs"] == 2


def test_a_host_key_is_forgotten(api: Api) -> None:
    added(api, name="pinned", host_key="SHA256:" + "a" * 43)
    key = paramiko.ECDSAKey.generate()
    api.instances.known_hosts.check("198.53.64.194", 40738, key)
    answer = api.client.post(f"{BASE}/pinned/forget-host-key").json
    assert answer["forgotten"] == key.fingerprint
    assert "pins" in answer["message"]
    assert api.client.post(f"{BASE}/pinned/forget-host-key").json["forgotten"] is None


@pytest.mark.parametrize(
    ("log", "most", "lines"),
    [
        ("", 5, []),
        ("a\n\nb\n", 5, ["a", "", "b"]),
        ("a\nb\nc", 2, ["b", "c"]),
        (" 10%|#   |\r100%|####|\ndone\r\n", 5, ["100%|####|", "done"]),
    ],
)
def test_the_tail_of_a_log_is_as_it_was_last_drawn(log: str, most: int, lines: list[str]) -> None:
    assert tail(log, most) == lines


# against instances


@pytest.fixture
def fleet(make_api: Callable[..., Api], tmp_path: Path) -> Iterator[Api]:
    settings = load_settings(data_dir=tmp_path / "data", state_file=tmp_path / "state.json")
    sessions = Pool(lambda key: open_session(key, settings))
    yield make_api(sessions=sessions)
    sessions.close()


@pytest.fixture
def frozen() -> Iterator[socket.socket]:
    """A socket that accepts connections and never sends anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(WAIT_S)
        yield listening


def add_sandbox(api: Api, sandbox: SandboxProcess) -> None:
    added(api, name="gpu", ssh_connection=sandbox.ssh_string)


def test_one_is_asked_what_it_is(fleet: Api, sandbox: SandboxProcess) -> None:
    add_sandbox(fleet, sandbox)
    answer = fleet.client.get(f"{BASE}/gpu/system_stats").json
    assert answer["system_stats"]["devices"][0]["vram_total"] > 0
    assert "argv" in answer["system_stats"]["system"]


def test_the_queue_tells_which_prompts_are_ours(fleet: Api, sandbox: SandboxProcess) -> None:
    add_sandbox(fleet, sandbox)
    run = fleet.service.submit(request_for("gpu"))
    first = submitted(sandbox, {})
    eventually(lambda: running(fleet) == [first])
    second = submitted(sandbox, {"comfyui_workflow": f"{run.run_id}/1"})
    third = submitted(sandbox, {"comfyui_workflow": "comfyui_workflow_1_ff/1"})
    answer = fleet.client.get(f"{BASE}/gpu/queue").json
    assert answer["running"] == [{"prompt_id": first, "workflow_id": None, "position": 0}]
    assert answer["pending"] == [
        {"prompt_id": second, "workflow_id": run.run_id, "position": 1},
        {"prompt_id": third, "workflow_id": None, "position": 2},
    ]


def test_what_runs_is_interrupted_and_nothing_else(fleet: Api, sandbox: SandboxProcess) -> None:
    add_sandbox(fleet, sandbox)
    run = fleet.service.submit(request_for("gpu"))
    first = submitted(sandbox, {"comfyui_workflow": f"{run.run_id}/1"})
    eventually(lambda: running(fleet) == [first])
    second = submitted(sandbox, {})
    url = f"{BASE}/gpu/interrupt"
    assert "1 ahead of it" in refused(fleet.client.post(url, json={"prompt_id": second}), 409, "run_conflict")
    refused(fleet.client.post(url, json={"workflow_id": "nobody"}), 409, "run_conflict")
    refused(fleet.client.post(url, json={"prompt_id": "a", "workflow_id": "b"}), 400, "invalid_request")
    refused(fleet.client.post(url, json={"prompt_id": ""}), 400, "invalid_request")
    fleet.journal.record(run.run_id, PromptPrepared(prompt_id=first, boot_marker=None))
    answer = fleet.client.post(url, json={"workflow_id": run.run_id}).json
    assert [each["prompt_id"] for each in answer["interrupted"]] == [first]
    assert fleet.service.get(run.run_id).is_cancel_requested
    assert run.run_id in answer["message"]
    eventually(lambda: running(fleet) == [second])
    answer = fleet.client.post(url).json
    assert "not a run of this server" in answer["message"]
    eventually(lambda: running(fleet) == [])
    assert fleet.client.post(url).json["message"] == "No prompt is running on gpu"


def test_a_run_that_went_elsewhere_is_not_cancelled_with_the_prompt_it_left(
    fleet: Api, sandbox: SandboxProcess
) -> None:
    add_sandbox(fleet, sandbox)
    run = fleet.service.submit(request_for("gpu"))
    left_behind = submitted(sandbox, {"comfyui_workflow": f"{run.run_id}/1"})
    fleet.journal.record(run.run_id, PromptPrepared(prompt_id="elsewhere", boot_marker=None))
    eventually(lambda: running(fleet) == [left_behind])
    fleet.client.post(f"{BASE}/gpu/interrupt")
    eventually(lambda: running(fleet) == [])
    assert not fleet.service.get(run.run_id).is_cancel_requested


def test_memory_is_freed_and_the_log_is_shown(fleet: Api, sandbox: SandboxProcess) -> None:
    add_sandbox(fleet, sandbox)
    assert fleet.client.post(f"{BASE}/gpu/free").json["success"]
    assert fleet.client.post(f"{BASE}/gpu/free", json={"free_memory": False}).json["success"]
    nothing = fleet.client.post(f"{BASE}/gpu/free", json={"free_memory": False, "unload_models": False})
    refused(nothing, 400, "invalid_request")
    submitted(sandbox, {})
    assert "[INFO] got prompt" in fleet.client.get(f"{BASE}/gpu/logs").json["lines"]
    assert len(fleet.client.get(f"{BASE}/gpu/logs?lines=1").json["lines"]) == 1
    refused(fleet.client.get(f"{BASE}/gpu/logs?lines=0"), 400, "invalid_request")


def test_one_that_is_connected_tells_its_state(fleet: Api, sandbox: SandboxProcess) -> None:
    add_sandbox(fleet, sandbox)
    assert fleet.client.post(f"{BASE}/gpu/connect").json["success"]
    eventually(lambda: state(fleet, "gpu")["reachability"] == "ready")
    seen = state(fleet, "gpu")
    assert seen["devices"][0]["vram_total"] > 0
    assert seen["prompts"] == {"running": [], "pending": [], "ours": [], "others": 0}
    assert seen["host_key_fingerprint"].startswith("SHA256:")
    assert fleet.client.post(f"{BASE}/gpu/disconnect").json["success"]
    eventually(lambda: state(fleet, "gpu")["reachability"] == "unknown")


def test_one_stays_connected_when_its_entry_is_changed(fleet: Api, sandbox: SandboxProcess) -> None:
    directory, monitors = fleet.instances.directory, fleet.instances.monitors
    directory.listen(lambda: monitors.reconcile({each.id: each for each in directory.all()}))
    add_sandbox(fleet, sandbox)
    fleet.client.post(f"{BASE}/gpu/connect")
    eventually(lambda: state(fleet, "gpu")["reachability"] == "ready")
    fleet.client.patch(f"{BASE}/gpu", json={"tags": ["big"]})
    eventually(lambda: state(fleet, "gpu")["reachability"] == "ready")
    fleet.client.delete(f"{BASE}/gpu")
    assert monitors.state("gpu").reachability == "unknown"


def test_a_dead_and_a_frozen_one_slow_no_request_about_another(
    fleet: Api, sandbox: SandboxProcess, frozen: socket.socket
) -> None:
    add_sandbox(fleet, sandbox)
    added(fleet, name="frozen", ssh_connection=at_port(sandbox, frozen.getsockname()[1]))
    added(fleet, name="dead", ssh_connection=at_port(sandbox, unused_port()))
    asking = threading.Thread(target=lambda: fleet.app.test_client().get(f"{BASE}/frozen/queue"))
    asking.start()
    connection, _ = frozen.accept()
    assert fleet.client.get(f"{BASE}/gpu/queue").status_code == 200
    assert fleet.client.get(f"{BASE}/dead/queue").status_code == 502
    assert len(fleet.client.get(BASE).json["instances"]) == 3
    assert fleet.client.post(f"{BASE}/frozen/connect").status_code == 200
    assert fleet.client.get(f"{BASE}/gpu/system_stats").status_code == 200
    assert asking.is_alive()
    connection.close()
    frozen.close()
    asking.join(WAIT_S)
    assert not asking.is_alive()


def test_one_that_is_known_to_be_away_is_not_waited_for(fleet: Api, sandbox: SandboxProcess) -> None:
    added(fleet, name="dead", ssh_connection=at_port(sandbox, unused_port()))
    fleet.client.post(f"{BASE}/dead/connect")
    eventually(lambda: state(fleet, "dead")["reachability"] == "unreachable")
    answer = fleet.client.get(f"{BASE}/dead/logs")
    assert "dead cannot be reached" in refused(answer, 502, "connection_failed")
    assert state(fleet, "dead")["trouble"] in answer.json["message"]


def at_port(sandbox: SandboxProcess, port: int) -> str:
    return sandbox.ssh_string.replace(str(sandbox.ssh_port), str(port))


def state(api: Api, name: str) -> dict[str, Any]:
    document: dict[str, Any] = api.client.get(f"{BASE}/{name}").json["instance"]["state"]
    return document


def running(api: Api) -> list[str]:
    return [each["prompt_id"] for each in api.client.get(f"{BASE}/gpu/queue").json["running"]]


def submitted(sandbox: SandboxProcess, extra_data: dict[str, str]) -> str:
    """Submits a prompt directly at the instance, not through this server."""
    graph = slow(steps=600, prefix=uuid.uuid4().hex)
    body = {"prompt": graph, "extra_data": extra_data}
    answer = requests.post(f"{sandbox.comfyui_url}/prompt", json=body, timeout=WAIT_S)
    return str(answer.json()["prompt_id"])


def unused_port() -> int:
    with socket.socket() as claim:
        claim.bind(("127.0.0.1", 0))
        return int(claim.getsockname()[1])


def eventually(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline_s, "it has not come to be"
        time.sleep(0.02)
