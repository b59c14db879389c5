"""A disk has damaged one file of the data directory, whichever: the server starts, everything that was
accepted is known under its id, nothing that executes is cancelled, and what was lost is told."""

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
import pytest
from flask.testing import FlaskClient

from comfyui_workflow.app import Server, create_server
from comfyui_workflow.instances.model import placement_of
from comfyui_workflow.runs.events import (
    ExecutionStarted,
    GraphPrepared,
    InstanceChosen,
    PromptAccepted,
    PromptPrepared,
    RunCompleted,
    RunFailed,
)
from comfyui_workflow.sessions.session import server_id
from comfyui_workflow.settings import load_settings
from comfyui_workflow.workflows.graph import Graph
from tests.checked_client import checked
from tests.damage import damaged

BASE = "/comfyui/workflow"
GRAPH: Graph = {"1": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}}
CLOSED = "ssh root@192.0.2.1"
TRIES = 4


@dataclass
class Accepted:
    """Ids of what is in the data directory."""

    directory: Path
    runs: list[str] = field(default_factory=list)
    executing: str = ""
    batch: str = ""
    job: str = ""
    webhook: str = ""


@contextmanager
def serving(directory: Path) -> Iterator[tuple[Server, FlaskClient]]:
    settings = load_settings(
        data_dir=directory / "data", state_file=directory / "state.json", ssh_key=directory / "key"
    )
    server = create_server(settings)
    try:
        server.start()
        yield server, checked(server.app)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Accepted:
    """A data directory with one of everything. None of its instances can be reached."""
    made = Accepted(tmp_path_factory.mktemp("accepted"))
    paramiko.ECDSAKey.generate().write_private_key_file(str(made.directory / "key"))
    with serving(made.directory) as (server, client):
        _order_everything(made, server, client)
    return made


def _order_everything(made: Accepted, server: Server, client: FlaskClient) -> None:
    def ask(path: str, body: object) -> dict[str, str]:
        answer = client.post(path, json=body)
        assert answer.status_code in (200, 201), answer.text
        return answer.get_json() or {}

    ask("/comfyui/instances", {"name": "gpu", "ssh_connection": CLOSED, "price_per_hour": 1})
    ask("/comfyui/instances", {"name": "off", "ssh_connection": CLOSED, "tags": ["none"], "enabled": False})
    order = {"ssh_connection": "any:none", "workflow": GRAPH, "output_dir": str(made.directory / "outputs")}
    made.runs = [ask(f"{BASE}/execute", order)["workflow_id"] for _ in range(4)]
    journal = server.parts.service._journal
    _waiting, made.executing, completed, failed = made.runs
    placement = placement_of(
        journal.get(made.executing).request, server.parts.instances.directory.require("gpu"), "it was free"
    )
    for event in (
        InstanceChosen(placement=placement),
        GraphPrepared(graph=GRAPH),
        PromptPrepared(prompt_id="0b6f1f4e-3a3c-4a5e-9a0e-2f6f0c1d2e3f", boot_marker="m"),
        PromptAccepted(prompt_id="0b6f1f4e-3a3c-4a5e-9a0e-2f6f0c1d2e3f"),
        ExecutionStarted(),
    ):
        journal.record(made.executing, event)
    journal.record(completed, RunCompleted())
    journal.record(failed, RunFailed(code="connection_failed", message="no"))
    batch = ask(f"{BASE}/batch", {**order, "rows": [{}, {}, {}], "batch_name": "night", "on_error": "stop"})
    made.batch = batch["batch_id"]
    made.runs += list(batch["workflow_ids"])
    made.job = ask("/v2/gpu/run", {"input": {"workflow": GRAPH}})["id"]
    made.runs.append(made.job)
    delivery = server.parts.outbox.add("http://192.0.2.1/hook", {"id": made.job}, made.job)
    made.webhook = delivery.delivery_id
    server.parts.instances.known_hosts.check("gpu", 22, paramiko.ECDSAKey.generate())
    server_id(made.directory / "data")


KINDS = {
    "request": "data/runs/live/*/request.json",
    "log": "data/runs/live/*/run.jsonl",
    "graph": "data/runs/live/*/graph.json",
    "workflow": "data/runs/live/*/workflow.json",
    "submission": "data/runs/live/*/submission.json",
    "finished request": "data/runs/finished/*/request.json",
    "finished log": "data/runs/finished/*/run.jsonl",
    "summaries": "data/runs/finished.jsonl",
    "batch": "data/batches/*.json",
    "job": "data/jobs/*.json",
    "webhook": "data/webhooks/*.json",
    "webhook content": "data/webhooks/*.content",
    "usage": "data/usage.json",
    "instances": "data/instances.json",
    "known hosts": "data/known_hosts",
    "server id": "data/server_id",
    "state": "state.json",
}
UNTOLD = {
    *("graph", "submission", "webhook content", "instances", "server id", "log", "finished log", "state"),
    "summaries",
}
"""Where a damage can leave what any file may say, or what a killed server leaves."""


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_file_is_damaged(tmp_path: Path, accepted: Accepted, kind: str) -> None:
    for number in range(TRIES):
        chance = random.Random(f"{kind} {number}")
        directory = tmp_path / str(number)
        shutil.copytree(accepted.directory, directory)
        places = sorted(directory.glob(KINDS[kind]))
        assert places, f"there is no {kind}"
        place = chance.choice(places)
        spoiled = damaged(place.read_bytes(), chance)
        place.write_bytes(spoiled)
        with serving(directory) as (_server, client):
            check_everything(client, accepted)
            if kind not in UNTOLD:
                told = (client.get(f"{BASE}/damage").get_json() or {})["damage"]
                assert any(place.name in each["path"] for each in told), (place, spoiled, told)
                assert all(each["outcome"] for each in told)
        with serving(directory) as (_server, client):
            check_everything(client, accepted)


def check_everything(client: FlaskClient, accepted: Accepted) -> None:
    for run in accepted.runs:
        answer = client.get(f"{BASE}/{run}/progress")
        assert answer.status_code == 200, answer.text
        progress = (answer.get_json() or {})["progress"]
        assert progress["status"] != "cancelled", progress
        if run == accepted.executing:
            is_going_on = progress["status"] in ("executing", "queued")
            assert is_going_on or progress["error_code"] == "record_damaged", progress["error_message"]
    listed = {each["workflow_id"] for each in (client.get(BASE).get_json() or {})["workflows"]}
    assert listed >= set(accepted.runs)
    for path in (
        f"{BASE}/batch/{accepted.batch}/progress",
        f"/v2/gpu/status/{accepted.job}",
        f"{BASE}/batch",
        "/comfyui/webhooks",
        "/comfyui/instances/gpu",
    ):
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.text)
    assert accepted.webhook in client.get("/comfyui/webhooks").text
    assert (client.get(f"{BASE}/batch/{accepted.batch}/progress").get_json() or {})["progress"]["total"] == 3
