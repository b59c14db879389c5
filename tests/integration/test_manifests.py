"""Machines from a manifest, and instances that are prepared before they take runs: the whole server."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.checked_client import check_answer
from tests.instance import OpenSSHInstance
from tests.integration.graphs import failing, painted, slow
from tests.provisioning.file_server import FileServer, ServedFile
from tests.provisioning.machine import Machine, serve_repository
from tests.provisioning.workflows import graph
from tests.sandbox_process import SandboxProcess
from tests.server_process import Json, ServerProcess
from tests.sshd import Sshd

pytestmark = pytest.mark.timeout(200)
CONTENT = os.urandom(100_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def web() -> Iterator[FileServer]:
    with FileServer().running() as web:
        yield web


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[OpenSSHInstance]:
    """A machine of the test's own, because models stay on it."""
    sshd = Sshd(tmp_path / "sshd")
    sshd.start_shells_in(tmp_path / "home")
    with SandboxProcess(tmp_path / "sandbox") as sandbox, sshd:
        yield OpenSSHInstance(sandbox, sshd)


class Fleet:
    """A server with one instance, `gpu`."""

    def __init__(self, server: ServerProcess, ssh_string: str, *, is_kept: bool = False) -> None:
        self.server = server
        self.ask("POST", "", {"name": "gpu", "ssh_connection": ssh_string})
        if is_kept:
            self.ask("POST", "/gpu/connect")

    def ask(self, method: str, path: str, body: object = None, status: int | None = None) -> Json:
        url = self.server.url.removesuffix("/workflow") + f"/instances{path}"
        answer = requests.request(method, url, json=body, timeout=60)
        assert answer.status_code == (status or answer.status_code), answer.text
        plain = f"/comfyui/instances{path}".partition("?")[0]
        check_answer(method, plain, answer.status_code, "application/json", lambda: answer.content)
        found: Json = answer.json()
        return found

    def provision(self, manifest: object, **more: object) -> Json:
        return self.ask("POST", "/gpu/provision", {"manifest": manifest, **more})

    def state(self) -> Json:
        return self.ask("GET", "/gpu/provision")

    def until(self, condition: Callable[[Json], bool], timeout_s: float = 90) -> Json:
        """The state of the application as soon as the condition holds."""
        deadline = time.monotonic() + timeout_s
        while not condition((found := self.state())["provision"] or {}):
            assert time.monotonic() < deadline, f"{found}\n{self.server.log()[-3000:]}"
            time.sleep(0.05)
        return found

    def until_ended(self) -> Json:
        return self.until(lambda found: found.get("status") in ("completed", "failed", "cancelled"))

    def preparation(self) -> Json | None:
        found: Json | None = self.ask("GET", "/gpu")["instance"]["state"]["preparation"]
        return found

    def until_prepared(self, status: str, timeout_s: float = 90) -> Json:
        deadline = time.monotonic() + timeout_s
        while (found := self.preparation()) is None or found["status"] != status:
            assert time.monotonic() < deadline, f"{found}\n{self.server.log()[-3000:]}"
            time.sleep(0.05)
        return found

    @property
    def readiness(self) -> int:
        url = self.server.url.removesuffix("/comfyui/workflow") + "/comfyui-api/ready"
        return requests.get(url, timeout=30).status_code

    def run(self, workflow: Json, **more: object) -> Json:
        return self.server.until_finished(self.server.execute("gpu", workflow, **more), 90)


def checkpoints(instance: OpenSSHInstance) -> list[str]:
    directory = instance.sandbox.output_dir.parent / "models" / "checkpoints"
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def models(web: FileServer, **more: object) -> Json:
    place = {"url": web.url("m"), "local_path": "/opt/ComfyUI/models/checkpoints/new.safetensors", **more}
    return {"models": {"before_start": [place]}}


def test_a_plan_changes_nothing_and_an_application_is_done_once(
    make_server: Callable[..., ServerProcess], instance: OpenSSHInstance, web: FileServer
) -> None:
    web.files["m"] = ServedFile(content=CONTENT, token="hush")
    server = make_server(PROVISION_HOSTS=web.origin, PROVISION_TOKENS="127.0.0.1=hush")
    fleet = Fleet(server, instance.ssh_string)
    assert fleet.state() == {"success": True, "provision": None, "lock": None}
    planned = fleet.provision(models(web), dry_run=True)["plan"]
    assert [each["action"] for each in planned["items"]] == ["download"]
    assert (planned["restarts"], checkpoints(instance), web.asked) == (False, [], [])
    fleet.provision(json.dumps(models(web)))
    done = fleet.until_ended()
    assert done["provision"]["status"] == "completed", done
    assert [(each["size"], each["sha256"]) for each in done["lock"]["models"]] == [(len(CONTENT), SHA256)]
    assert checkpoints(instance) == ["new.safetensors"]
    assert fleet.run(graph("new.safetensors"))["status"] == "completed"
    fleet.provision(models(web))
    again = fleet.until_ended()
    assert [each["text"] for each in again["provision"]["log"]] == [
        "Everything is there: nothing is to be done"
    ]
    assert len(web.gets("m")) == 1
    data = b"".join(path.read_bytes() for path in server.data_dir.rglob("*") if path.is_file())
    assert "hush" not in f"{done}{server.log()}"
    assert b"hush" not in data


REFUSED = [
    ({}, 400, "manifest is required"),
    ({"manifest": {"nodes": []}}, 400, "nodes is not a field of a manifest"),
    ({"manifest": "a: ["}, 400, "not valid YAML"),
    ({"manifest": 3}, 400, "must be an object"),
    ({"manifest": {}, "dry": True}, 400, "dry is not a field"),
    ({"manifest": {}, "dry_run": 1}, 400, "dry_run must be true or false"),
    ({"manifest": {}, "credentials": 1}, 400, "credentials must be a list"),
]


def test_what_is_not_allowed_is_refused(
    make_server: Callable[..., ServerProcess], instance: OpenSSHInstance, web: FileServer
) -> None:
    fleet = Fleet(make_server(), instance.ssh_string)
    for body, status, reason in REFUSED:
        assert reason in fleet.ask("POST", "/gpu/provision", body, status)["message"]
    assert fleet.ask("POST", "/other/provision", {"manifest": {}}, 404)["code"] == "instance_not_found"
    assert "No manifest is being applied" in fleet.ask("DELETE", "/gpu/provision")["message"]
    fleet.provision(models(web))
    done = fleet.until_ended()["provision"]
    assert done["status"] == "failed"
    assert "not in COMFYUI_WORKFLOW_PROVISION_HOSTS" in done["error"]
    assert web.asked == []


def test_a_killed_server_continues_and_a_cut_connection_too(
    make_server: Callable[..., ServerProcess], instance: OpenSSHInstance, web: FileServer
) -> None:
    file = web.files["m"] = ServedFile(content=CONTENT, pause=threading.Event())
    server = make_server(PROVISION_HOSTS=web.origin)
    fleet = Fleet(server, instance.ssh_string)
    secret = {**models(web, url=web.url("m?key=hush"))}
    web.files["m?key=hush"] = file
    fleet.provision(secret)
    fleet.until(lambda found: "KB of" in (found.get("activity") or ""))
    assert fleet.ask("POST", "/gpu/provision", {"manifest": {}}, 409)["code"] == "run_conflict"
    fleet.provision(secret)  # the very same is no second one
    instance.cut()
    fleet.until(lambda found: "KB of" in (found.get("activity") or ""))
    server.kill()
    server.start()
    assert file.pause is not None
    file.pause.set()
    done = fleet.until_ended()
    assert done["provision"]["status"] == "completed", done
    assert "Continued after a restart of the server" in str(done["provision"]["log"])
    assert checkpoints(instance) == ["new.safetensors"]
    assert web.gets("m?key=hush")[-1].range is not None
    assert done["lock"]["models"][0]["sha256"] == SHA256
    left = [path for path in server.data_dir.rglob("*") if path.is_file() and b"hush" in path.read_bytes()]
    assert left == []
    assert "hush" not in f"{done}{server.log()}"


def test_an_application_that_cannot_be_continued_says_so(
    make_server: Callable[..., ServerProcess], instance: OpenSSHInstance, web: FileServer
) -> None:
    web.files["m"] = ServedFile(content=CONTENT, pause=threading.Event())
    server = make_server(PROVISION_HOSTS=web.origin)
    fleet = Fleet(server, instance.ssh_string)
    fleet.provision(models(web))
    fleet.until(lambda found: "KB of" in (found.get("activity") or ""))
    server.kill()
    (server.data_dir / "provision_orders" / "gpu").write_text("{damaged")
    server.start()
    done = fleet.until_ended()["provision"]
    assert (done["status"], done["error"]) == (
        "failed",
        "It could not be continued after a restart of the server",
    )


def test_an_application_is_cancelled(
    make_server: Callable[..., ServerProcess], instance: OpenSSHInstance, web: FileServer
) -> None:
    web.files["m"] = ServedFile(content=CONTENT, pause=threading.Event())
    fleet = Fleet(make_server(PROVISION_HOSTS=web.origin), instance.ssh_string)
    fleet.provision(models(web))
    fleet.until(lambda found: "KB of" in (found.get("activity") or ""))
    fleet.ask("DELETE", "/gpu/provision")
    assert fleet.until_ended()["provision"]["status"] == "cancelled"
    assert [name for name in checkpoints(instance) if not name.startswith(".")] == []


def test_the_manifest_of_the_settings_is_applied_before_the_first_run(
    make_server: Callable[..., ServerProcess], instance: OpenSSHInstance, web: FileServer
) -> None:
    file = web.files["m"] = ServedFile(content=CONTENT, pause=threading.Event())
    server = make_server(PROVISION_HOSTS=web.origin, MANIFEST_JSON=json.dumps(models(web)))
    fleet = Fleet(server, instance.ssh_string)
    run = server.execute("gpu", graph("new.safetensors"))
    waiting = server.until(run, lambda p: "not ready yet" in (p["message"] or ""))
    assert waiting["status"] == "queued" or waiting["phase"] == "waiting"
    assert fleet.readiness == 503
    assert file.pause is not None
    file.pause.set()
    assert server.until_finished(run)["status"] == "completed"
    fleet.until_prepared("done")
    assert fleet.state()["lock"]["models"][0]["sha256"] == SHA256
    assert fleet.run(graph("new.safetensors"))["status"] == "completed"
    assert len(web.gets("m")) == 1


def test_a_manifest_that_fails_is_told_and_holds_nothing(
    make_server: Callable[..., ServerProcess], instance: OpenSSHInstance, web: FileServer
) -> None:
    fleet = Fleet(make_server(MANIFEST_JSON=json.dumps(models(web))), instance.ssh_string)
    assert fleet.run(painted(1))["status"] == "completed"
    assert "not in COMFYUI_WORKFLOW_PROVISION_HOSTS" in fleet.until_prepared("failed")["message"]


@pytest.mark.parametrize("manifest", ['{"nodes": []}', "3"])
def test_a_server_does_not_start_with_an_unusable_manifest(tmp_path: Path, manifest: str) -> None:
    server = ServerProcess(tmp_path / "server", MANIFEST_JSON=manifest)
    with pytest.raises(AssertionError, match="The manifest of the settings is not usable"):
        server.start()
    server.kill()


def test_each_start_of_comfyui_is_warmed_up_once(
    make_server: Callable[..., ServerProcess], instance: OpenSSHInstance, tmp_path: Path
) -> None:
    file = tmp_path / "warm-up.json"
    file.write_text(json.dumps(slow(2, steps=2, seconds_per_step=0.5)))
    server = make_server(WARMUP_PROMPT_FILE=file, connection_idle_s=60)
    fleet = Fleet(server, instance.ssh_string)
    run = server.execute("gpu", painted(1))
    server.until(run, lambda p: "not ready yet: Warming up" in (p["message"] or ""))
    assert fleet.readiness == 503
    done = server.until_finished(run, 90)
    assert done["status"] == "completed"
    fleet.until_prepared("done")
    executed = [each["prompt_id"] for each in instance.sandbox.executions()]
    assert len(executed) == 2
    assert executed[1] == done["prompt_id"]  # the warm-up was first

    fleet.run(painted(2))
    server.kill()
    server.start()
    fleet.run(painted(3))
    assert len(instance.sandbox.executions()) == 4

    instance.sandbox.restart()
    fleet.run(painted(4))
    again = [each["prompt_id"] for each in instance.sandbox.executions()]
    assert again.count(executed[0]) == 2
    assert len(again) == 6
    assert again[4] == executed[0]
    listed = server.get("")["workflows"]
    assert len(listed) == 4


def test_a_warm_up_that_fails_is_told_and_holds_nothing(
    make_server: Callable[..., ServerProcess], instance: OpenSSHInstance, tmp_path: Path, web: FileServer
) -> None:
    web.files["w"] = ServedFile(content=json.dumps(failing()).encode())
    fleet = Fleet(make_server(WARMUP_PROMPT_URL=web.url("w")), instance.ssh_string, is_kept=True)
    told = fleet.until_prepared("failed")
    assert told["message"].startswith("The warm-up failed: Node execution failed")
    assert fleet.run(painted(2))["status"] == "completed"
    assert len(instance.sandbox.executions()) == 2
    fleet.server.kill()
    fleet.server.start()
    assert fleet.until_prepared("failed")["message"] == told["message"]  # from the history
    assert len(instance.sandbox.executions()) == 2
    web.files["w"] = ServedFile(content=b"no workflow")
    instance.sandbox.restart()
    deadline = time.monotonic() + 60
    while "is not a workflow" not in str(fleet.preparation()):
        assert time.monotonic() < deadline, fleet.preparation()
        time.sleep(0.05)


def run_command(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "comfyui_workflow", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_command(
    make_server: Callable[..., ServerProcess], instance: OpenSSHInstance, web: FileServer, tmp_path: Path
) -> None:
    web.files["m"] = ServedFile(content=CONTENT)
    fleet = Fleet(make_server(PROVISION_HOSTS=web.origin), instance.ssh_string)
    file, lock = tmp_path / "manifest.yaml", tmp_path / "lock.json"
    model = f"{{url: {web.url('m')}, local_path: checkpoints/new.safetensors}}"
    file.write_text(f"models:\n  before_start:\n    - {model}\n")
    server = fleet.server.url.removesuffix("/comfyui/workflow")
    command = ["instances", "provision", "gpu", "--manifest", str(file), "--server", server]
    planned = run_command(*command, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "checkpoints/new.safetensors: to be downloaded" in planned.stdout
    assert web.asked == []
    done = run_command(*command, "--lock", str(lock))
    assert done.returncode == 0, done.stderr
    assert "Downloaded new.safetensors (100 KB)" in done.stderr
    assert json.loads(lock.read_text())["models"][0]["sha256"] == SHA256
    assert "nothing is to be done" in run_command(*command).stderr
    file.write_text("apt: 3")
    refused = run_command(*command)
    assert (refused.returncode, "apt must be a list" in refused.stderr) == (2, True)
    file.write_text("pip: ['x @ https://example.com/x.whl']")
    assert run_command(*command, "--dry-run").returncode == 1


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A fake ComfyUI that can be restarted, and has node packs."""
    machine = Machine(tmp_path / "ComfyUI")
    machine.start()
    yield machine
    machine.close()


def test_a_server_that_is_killed_while_git_clones_continues(
    make_server: Callable[..., ServerProcess], machine: Machine, web: FileServer, tmp_path: Path
) -> None:
    commits = serve_repository(web, tmp_path)
    pack = max(
        (name for name in web.files if "fancy.git/objects/" in name), key=lambda n: len(web.files[n].content)
    )
    pause = web.files[pack].pause = threading.Event()
    sshd = Sshd(tmp_path / "sshd")
    sshd.start_shells_in(tmp_path / "home")
    host = web.origin.partition("://")[2]
    server = make_server(PROVISION_HOSTS=web.origin, PROVISION_PACKS=f"{host}/fancy")
    with sshd:
        fleet = Fleet(server, sshd.ssh_string(comfyui_port=machine.port))
        fleet.provision({"pip": ["numpi==1.0"], "custom_nodes": [f"{web.url('fancy.git')}@v1.0.0"]})
        fleet.until(lambda _: bool(web.gets(pack)))
        (before,) = machine.pids()
        server.kill()
        pause.set()
        server.start()
        done = fleet.until_ended()
    assert done["provision"]["status"] == "completed", done
    assert [each["action"] for each in done["provision"]["plan"]] == ["none", "install"]
    assert done["lock"]["custom_nodes"][0]["commit"] == commits[0]
    assert machine.pip_log.read_text().count("numpi") == 1
    assert machine.pids() != [before]
    assert str(done["provision"]["log"]).count("Restarting ComfyUI") == 1
