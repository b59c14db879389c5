"""A key of Comfy.org on its way to ComfyUI: in no record, no answer and no log, and gone when it is there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.graphs import painted, slow
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess

KEY = "comfyui-0123456789abcdef"
MakeServer = Callable[..., ServerProcess]


def order(server: ServerProcess, graph: dict[str, Any], how: str = "job") -> str:
    """Returns the id of the run. `how`: `execute`, `batch` or `job`; after `wrapped`, the key is in the body
    of a `POST /prompt` that is given as the workflow, and after `file`, in a file with that body."""
    ssh_connection = str(server.settings["default_endpoint"])
    wrapped = {"client_id": "x", "prompt": graph, "extra_data": {"api_key_comfy_org": KEY}}
    given: dict[str, Any] = {"workflow": graph, "comfy_org_api_key": KEY}
    if how.startswith("wrapped"):
        given = {"workflow": wrapped}
    elif how.startswith("file"):
        file = server.directory.parent / "saved body.json"
        file.write_text(json.dumps(wrapped))
        given = {"workflow_file": str(file)}
    run = {"ssh_connection": ssh_connection, **given}
    if how.endswith("execute"):
        answer = server.post("/execute", run)
    elif how.endswith("batch"):
        answer = server.post("/batch", {**run, "rows": [{}]})
    else:
        body = {"input": given}
        answer = requests.post(server.url.replace("/comfyui/workflow", "/run"), json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    created = answer.json()
    return str(created.get("workflow_id") or created.get("id") or created["workflow_ids"][0])


def places_of_the_key(*directories: Path) -> list[Path]:
    found = (path for directory in directories for path in directory.rglob("*") if path.is_file())
    return [path for path in found if KEY.encode() in path.read_bytes()]


def key_at(sandbox: SandboxProcess) -> list[str | None]:
    """The keys of the prompts in ComfyUI's queue, which only older versions show."""
    sandbox.faults(version="0.3.64")
    queue = requests.get(f"{sandbox.comfyui_url}/queue", timeout=30).json()
    items = queue["queue_running"] + queue["queue_pending"]
    return [item[3].get("api_key_comfy_org") for item in items]


def answers(server: ServerProcess, run_id: str) -> str:
    root = server.url.replace("/comfyui/workflow", "")
    paths = [
        "",
        "/state",
        "/now",
        f"/{run_id}/progress",
        f"/{run_id}/request",
        f"/{run_id}/outputs",
    ]
    urls = [server.url + path for path in paths] + [
        f"{root}/status/{run_id}",
        f"{root}/comfyui/instances",
    ]
    return "".join(requests.get(url, timeout=30).text for url in urls)


@pytest.mark.parametrize(
    "how",
    [
        "execute",
        "batch",
        "job",
        "wrapped execute",
        "wrapped batch",
        "wrapped job",
        "file execute",
        "file batch",
    ],
)
def test_a_key_goes_along_and_is_gone_when_the_prompt_was_accepted(
    make_server: MakeServer, sandbox: SandboxProcess, how: str
) -> None:
    server = make_server(default_endpoint=sandbox.ssh_string, log_level="DEBUG")
    run = order(server, slow(steps=600), how)
    server.until_status(run, "executing")
    assert key_at(sandbox) == [KEY]
    assert places_of_the_key(server.directory) == []
    assert KEY not in answers(server, run)
    server.post(f"/{run}/cancel")
    server.until_finished(run)
    assert places_of_the_key(server.directory) == []
    assert KEY not in answers(server, run) + server.log()


@pytest.mark.parametrize("how", ["execute", "batch", "job"])
def test_a_key_of_a_run_that_waits_survives_a_kill_in_a_file_of_its_own(
    make_server: MakeServer, sandbox: SandboxProcess, how: str
) -> None:
    sandbox.kill()
    server = make_server(default_endpoint=sandbox.ssh_string)
    run = order(server, slow(steps=600), how)
    server.until(run, lambda progress: "trying again" in (progress["message"] or ""))
    server.kill()
    (kept,) = places_of_the_key(server.directory)
    assert kept == server.data_dir / "secrets" / run
    assert kept.stat().st_mode & 0o777 == 0o600
    server.start()
    assert KEY not in answers(server, run)
    sandbox.restart()
    server.until_status(run, "executing", timeout_s=60)
    assert key_at(sandbox) == [KEY]
    assert places_of_the_key(server.directory) == []


def test_a_lost_prompt_that_needs_no_key_is_submitted_again_without_one(
    make_server: MakeServer, sandbox: SandboxProcess
) -> None:
    server = make_server(default_endpoint=sandbox.ssh_string)
    run = order(server, slow(steps=30))
    server.until_status(run, "executing")
    sandbox.kill()
    sandbox.restart()
    assert server.until_finished(run, timeout_s=90)["status"] == "completed"


@pytest.mark.parametrize("how", ["cancel", "fail"])
def test_a_run_that_ends_before_it_was_submitted_leaves_no_key(
    make_server: MakeServer, sandbox: SandboxProcess, how: str
) -> None:
    sandbox.kill()
    server = make_server(
        default_endpoint=sandbox.ssh_string, contact_patience_s=600 if how == "cancel" else 0
    )
    run = order(server, painted())
    if how == "cancel":
        server.post(f"/{run}/cancel")
    server.until_finished(run, timeout_s=60)
    sandbox.restart()
    assert places_of_the_key(server.directory) == []
