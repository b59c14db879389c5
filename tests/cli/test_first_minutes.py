"""The first minutes: no instance, a server with a token, a busy port, a lost response, an API key."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from comfyui_workflow import demo
from comfyui_workflow.cli.own_server import serve_in_this_process
from comfyui_workflow.client import calls
from comfyui_workflow.client.server import WorkflowServer
from comfyui_workflow.settings import load_settings
from tests.cli.canned_server import CannedServer
from tests.cli.conftest import Command

TOKEN = "a-token-of-this-test"
RUN_ID = "comfyui_workflow_1_0"
ALIVE = (200, {"unfinished_runs": 0})


@pytest.mark.parametrize("options", [("run",), ("validate",), ("batch", "--vary", "3.seed=1..2")])
def test_any_without_an_instance_is_refused_with_how_to_add_one(
    server: str, command: Command, options: tuple[str, ...]
) -> None:
    name, *rest = options
    result = command(name, demo.TEXT_TO_IMAGE, "--ssh", "any", *rest)
    assert result.exit_code == 2
    assert (
        "There are no instances to choose from: add one with comfyui-workflow instances add" in result.stderr
    )


def test_a_tag_that_no_instance_has_is_refused(server: str, command: Command) -> None:
    with WorkflowServer(server) as client:
        client.instances.add(name="gpu", ssh_connection="ssh root@gpu.example", tags=["SDXL", "big"])
        client.instances.add(name="other", ssh_connection="ssh root@o.example", tags=["big"], enabled=False)
    result = command("run", demo.TEXT_TO_IMAGE, "--ssh", "any:sdlx")
    assert result.exit_code == 2
    assert 'No instance has the tag "sdlx": the tags are SDXL, big. ' in result.stderr
    with WorkflowServer(server) as client:  # an instance that is disabled can be enabled
        client.instances.change("gpu", tags=[], enabled=False)
        for target in ("any", "any:BIG"):
            assert client.execute(workflow=demo.TEXT_TO_IMAGE, ssh_connection=target).workflow_id


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        (None, "The server needs its API token: set COMFYUI_WORKFLOW_API_TOKEN to the token"),
        ("wrong", "COMFYUI_WORKFLOW_API_TOKEN is not the token of this server"),
    ],
)
def test_a_server_with_a_token_names_the_variable(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, sentence: str
) -> None:
    settings = load_settings(port=0, data_dir=tmp_path / "server", api_token=TOKEN)
    with serve_in_this_process(settings) as url:
        monkeypatch.setenv("COMFYUI_WORKFLOW_SERVER_URL", url)
        if token is not None:
            monkeypatch.setenv("COMFYUI_WORKFLOW_API_TOKEN", token)
        for arguments in (("list",), ("run", demo.TEXT_TO_IMAGE, "--ssh", "gpu"), ("instances", "list")):
            result = command(*arguments)
            assert (result.exit_code, result.stdout) == (2, "")
            assert sentence in result.stderr
            assert TOKEN not in result.stderr


def test_a_busy_port_offers_the_next_free_one(environment: dict[str, str]) -> None:
    busy, taken, free = three_ports()
    with busy, taken:
        port = busy.getsockname()[1]
        serving = subprocess.run(
            [sys.executable, "-m", "comfyui_workflow", "serve", "--port", str(port)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert serving.returncode == 2
    assert f"Port {free} is free: COMFYUI_WORKFLOW_PORT={free} chooses it" in serving.stderr


def three_ports() -> tuple[socket.socket, socket.socket, int]:
    """Returns a port in use, the one after it in use too, and the number of the next one, which is free."""
    for _ in range(100):
        first, second, third = (socket.socket() for _ in range(3))
        with third:
            first.bind(("127.0.0.1", 0))
            first.listen()
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
                second.listen()
                third.bind(("127.0.0.1", port + 2))
            except (OSError, OverflowError):
                first.close()
                second.close()
                continue
            return first, second, port + 2
    raise AssertionError("no three free ports in a row")


# the request of a run has a key, so that it can be sent again


def test_a_run_whose_response_was_lost_is_sent_again_with_the_same_key(
    canned: CannedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls.time, "sleep", lambda _: None)
    away = (502, b"<html>Bad gateway</html>")
    canned.will_answer(away, away, (200, {"success": True, "workflow_id": RUN_ID, "message": "started"}))
    with WorkflowServer(canned.url) as client:
        assert client.execute(workflow={}, ssh_connection="gpu").workflow_id == RUN_ID
    assert len(canned.requests) == 3
    keys = [headers["Idempotency-Key"] for _, _, headers, _ in canned.requests]
    assert len(set(keys)) == 1
    assert len({body for *_, body in canned.requests}) == 1


def test_each_call_has_a_key_of_its_own_unless_it_is_given(canned: CannedServer) -> None:
    canned.will_answer((200, {"workflow_id": RUN_ID, "batch_id": "batch_1_a", "workflow_ids": []}))
    order = {"workflow": {}, "ssh_connection": "gpu"}
    with WorkflowServer(canned.url) as client:
        client.execute(**order)  # type: ignore[typeddict-item]
        client.execute(**order)  # type: ignore[typeddict-item]
        client.execute(**order, idempotency_key="mine")  # type: ignore[typeddict-item]
        client.batches.order(**order, rows=[{}], idempotency_key="mine")  # type: ignore[typeddict-item]
        client.batches.send({"runs": []})
    keys = [headers["Idempotency-Key"] for _, _, headers, _ in canned.requests]
    assert keys[2:4] == ["mine", "mine"]
    assert len(set(keys)) == 4
    assert not any(b"idempotency" in body for *_, body in canned.requests)


# the key of Comfy.org


@pytest.mark.parametrize("name", ["run", "batch", "validate"])
@pytest.mark.parametrize("is_option", [True, False])
def test_the_api_key_goes_with_the_request(
    canned: CannedServer, command: Command, monkeypatch: pytest.MonkeyPatch, name: str, is_option: bool
) -> None:
    canned.will_answer(ALIVE, (400, {"success": False, "message": "No.", "code": "invalid_request"}))
    arguments = [name, demo.TEXT_TO_IMAGE, "--ssh", "gpu", "--server", canned.url]
    arguments += ["--vary", "3.seed=1..2"] if name == "batch" else []
    if is_option:
        arguments += ["--comfy-api-key", "comfyui-secret"]
    else:
        monkeypatch.setenv("COMFYUI_WORKFLOW_COMFY_API_KEY", "comfyui-secret")
    result = command(*arguments)
    assert json.loads(canned.requests[-1][3])["comfy_org_api_key"] == "comfyui-secret"
    assert "comfyui-secret" not in result.output


@pytest.mark.parametrize("several", [True, False])
def test_the_api_key_goes_with_a_whole_batch(
    canned: CannedServer, command: Command, tmp_path: Path, several: bool
) -> None:
    canned.will_answer(ALIVE, (400, {"success": False, "message": "No.", "code": "invalid_request"}))
    own = {"comfy_org_api_key": "its-own"}
    body = {"runs": [{}, own, 7]} if several else {"rows": [{}]}
    file = tmp_path / "body.json"
    file.write_text(json.dumps(body))
    command("batch", "--rows", file, "--server", canned.url, "--comfy-api-key", "comfyui-secret")
    sent = json.loads(canned.requests[-1][3])
    key = {"comfy_org_api_key": "comfyui-secret"}
    assert sent == ({"runs": [key, own, 7]} if several else {**body, **key})
