"""Runs that bring what the instance lacks: models that the workflow file names, and URLs in loaders."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comfyui_workflow.workflows.model_sources import name_of_url
from tests.instance import OpenSSHInstance
from tests.provisioning.file_server import FileServer, ServedFile
from tests.provisioning.workflows import editor_file, graph
from tests.sandbox_process import SandboxProcess
from tests.server_process import Json, ServerProcess
from tests.sshd import Sshd

CONTENT = os.urandom(100_000)


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


@pytest.fixture
def server(make_server: Callable[..., ServerProcess], web: FileServer) -> ServerProcess:
    return make_server(PROVISION_HOSTS=f"huggingface.co,{web.origin}", PROVISION_TOKENS="127.0.0.1=secret")


def checkpoints(instance: OpenSSHInstance) -> list[str]:
    directory = instance.sandbox.output_dir.parent / "models" / "checkpoints"
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_a_run_brings_the_model_that_its_file_names(
    server: ServerProcess, instance: OpenSSHInstance, web: FileServer
) -> None:
    web.files["m"] = ServedFile(content=CONTENT, token="secret")
    workflow = editor_file("new model.safetensors", web.url("m"))
    refused = server.until_finished(server.execute(instance.ssh_string, workflow))
    assert refused["status"] == "failed"
    assert "has not got" in refused["error_message"]
    assert web.asked == []
    done = server.until_finished(server.execute(instance.ssh_string, workflow, provision=True))
    assert done["status"] == "completed", done["error_message"]
    assert checkpoints(instance) == ["new model.safetensors"]
    assert any("Downloaded new model.safetensors (100 KB) from 127.0.0.1" in each for each in done["notices"])
    again = server.until_finished(server.execute(instance.ssh_string, workflow, provision=True))
    assert again["status"] == "completed"
    assert len(web.gets("m")) == 1
    assert "secret" not in str([done, again])


def test_a_url_in_a_loader_becomes_a_model(
    server: ServerProcess, instance: OpenSSHInstance, web: FileServer
) -> None:
    web.files["dir/sd.safetensors"] = ServedFile(content=CONTENT)
    url = web.url("dir/sd.safetensors")
    done = server.until_finished(server.execute(instance.ssh_string, graph(url), provision=True))
    assert done["status"] == "completed", done["error_message"]
    assert checkpoints(instance) == [name_of_url(url)]
    by_input = server.execute(
        instance.ssh_string, graph("nothing.ckpt"), provision=True, inputs={"1.ckpt_name": url}
    )
    assert server.until_finished(by_input)["status"] == "completed"
    assert len(web.gets("dir/sd.safetensors")) == 1


def test_validate_tells_where_what_is_missing_can_be_had_and_how_large_it_is(
    server: ServerProcess, instance: OpenSSHInstance, web: FileServer
) -> None:
    web.files["m"] = ServedFile(content=CONTENT, token="secret")
    body = {"ssh_connection": instance.ssh_string, "workflow": editor_file("new.safetensors", web.url("m"))}
    answer = server.post("/validate", body).json()
    assert answer["valid"] is False
    assert answer["missing"] == [
        {
            "name": "new.safetensors",
            "folder": "checkpoints",
            "node_id": "1",
            "class_type": "CheckpointLoaderSimple",
            "input": "ckpt_name",
            "url": web.url("m"),
            "size_bytes": len(CONTENT),
            "can_provide": True,
            "reason": None,
        }
    ]
    assert [each.method for each in web.asked] == ["HEAD"]
    body["workflow"] = editor_file("new.safetensors", "https://example.com/m")
    (missing,) = server.post("/validate", body).json()["missing"]
    assert missing["can_provide"] is False
    assert missing["reason"] == "example.com is not in COMFYUI_WORKFLOW_PROVISION_HOSTS"


@pytest.mark.parametrize(
    "source, reason",
    [
        ({"url": "https://example.com/m"}, "example.com is not in COMFYUI_WORKFLOW_PROVISION_HOSTS"),
        ({"path": "nothing"}, "answers 404"),
        ({"hash": "0" * 64, "hash_type": "SHA256"}, "other content than it should have"),
        ({"directory": "custom_nodes"}, "custom_nodes is no folder for models"),
    ],
)
def test_what_cannot_be_had_fails_the_run_with_the_reason(
    server: ServerProcess, instance: OpenSSHInstance, web: FileServer, source: Json, reason: str
) -> None:
    web.files["m"] = ServedFile(content=CONTENT)
    more = {name: value for name, value in source.items() if name != "path"}
    given = {"url": web.url(source.get("path", "m")), **more}
    workflow = editor_file("new.safetensors", **given)
    done = server.until_finished(server.execute(instance.ssh_string, workflow, provision=True))
    assert (done["status"], done["error_code"]) == ("failed", "provision_failed")
    assert reason in done["error_message"]
    assert checkpoints(instance) == []
    assert instance.sandbox.executions() == []


def test_validate_names_the_node_packs_that_are_missing(
    make_server: Callable[..., ServerProcess], instance: OpenSSHInstance
) -> None:
    server = make_server(PROVISION_PACKS="none")
    workflow = editor_file("sandbox-stand-in.safetensors", "https://huggingface.co/m")
    workflow["nodes"][2] |= {"type": "Fancy", "properties": {"cnr_id": "fancy", "ver": "1.2.3"}}
    body = {"ssh_connection": instance.ssh_string, "workflow": workflow}
    assert server.post("/validate", body).json()["missing_packs"] == [
        {
            "name": "fancy",
            "version": "1.2.3",
            "class_types": ["Fancy"],
            "url": None,
            "can_provide": False,
            "reason": "fancy is not in COMFYUI_WORKFLOW_PROVISION_PACKS",
        }
    ]
    done = server.until_finished(server.execute(instance.ssh_string, workflow, provision=True))
    assert (done["status"], done["error_code"]) == ("failed", "provision_failed")


def test_a_download_is_a_step_of_the_run_that_survives_a_cut(
    server: ServerProcess, instance: OpenSSHInstance, web: FileServer
) -> None:
    file = web.files["m"] = ServedFile(content=CONTENT, pause=threading.Event())
    run = server.execute(instance.ssh_string, editor_file("new.safetensors", web.url("m")), provision=True)
    shown = server.until(run, lambda p: any(each["done_bytes"] for each in p["transfers"]))
    assert shown["phase"] == "provisioning"
    assert shown["message"].startswith("Downloading new.safetensors on the instance")
    assert shown["transfers"][0]["total_bytes"] == len(CONTENT)
    instance.cut()
    assert file.pause is not None
    file.pause.set()
    done = server.until_finished(run)
    assert done["status"] == "completed", done["error_message"]
    assert web.gets("m")[-1].range is not None
    assert len(instance.sandbox.executions()) == 1


def test_a_cancelled_run_stops_its_download(
    server: ServerProcess, instance: OpenSSHInstance, web: FileServer
) -> None:
    web.files["m"] = ServedFile(content=CONTENT, pause=threading.Event())
    run = server.execute(instance.ssh_string, editor_file("new.safetensors", web.url("m")), provision=True)
    server.until(run, lambda p: p["phase"] == "provisioning" and p["transfers"])
    server.post(f"/{run}/cancel")
    assert server.until_finished(run)["status"] == "cancelled"
    assert [name for name in checkpoints(instance) if not name.startswith(".")] == []


def test_a_killed_server_continues_the_download(
    server: ServerProcess, instance: OpenSSHInstance, web: FileServer
) -> None:
    file = web.files["m"] = ServedFile(content=CONTENT, pause=threading.Event())
    run = server.execute(instance.ssh_string, editor_file("new.safetensors", web.url("m")), provision=True)
    server.until(run, lambda p: any(each["done_bytes"] for each in p["transfers"]))
    server.kill()
    assert file.pause is not None
    file.pause.set()
    server.start()
    done = server.until_finished(run)
    assert done["status"] == "completed", done["error_message"]
    assert checkpoints(instance) == ["new.safetensors"]
    assert len(instance.sandbox.executions()) == 1
