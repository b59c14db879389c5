"""Models by URL through comfyui-api: in a prompt, and by `/download`; on a machine behind a real sshd."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from comfyui_workflow.workflows.model_sources import name_of_url
from tests.instance import OpenSSHInstance
from tests.integration.test_comfyui_api import Client
from tests.provisioning.file_server import FileServer, ServedFile, wait_until
from tests.provisioning.workflows import graph
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess
from tests.sshd import Sshd

CONTENT = os.urandom(100_000)
Json = dict[str, Any]


@pytest.fixture
def web() -> Iterator[FileServer]:
    with FileServer().running() as web:
        yield web


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[OpenSSHInstance]:
    """A machine of the test's own, because models stay on it."""
    sshd = Sshd(tmp_path / "sshd")
    sshd.start_shells_in(tmp_path / "home")
    with SandboxProcess(tmp_path / "sandbox") as sandbox, sshd:
        yield OpenSSHInstance(sandbox, sshd)


@pytest.fixture
def server(make_server: Callable[..., ServerProcess], web: FileServer) -> ServerProcess:
    return make_server(PROVISION_HOSTS=f"huggingface.co,{web.origin}")


@pytest.fixture
def client(server: ServerProcess, machine: OpenSSHInstance) -> Client:
    return client_of(server, machine)


def client_of(server: ServerProcess, machine: OpenSSHInstance) -> Client:
    return Client(server.url.replace("/comfyui/workflow", "/comfyui-api"), machine.ssh_string)


def models(machine: OpenSSHInstance, folder: str) -> list[str]:
    directory = machine.sandbox.output_dir.parent / "models" / folder
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def records(server: ServerProcess) -> bytes:
    """All that the server has on disk, without the credentials of unfinished runs."""
    files = [path for path in server.data_dir.rglob("*") if path.is_file()]
    return b"".join(path.read_bytes() for path in files)


def test_the_url_of_a_model_becomes_its_name(
    client: Client, server: ServerProcess, machine: OpenSSHInstance, web: FileServer
) -> None:
    web.files["sd.safetensors?key=hid"] = ServedFile(content=CONTENT)
    web.files["sd.safetensors?key=hid2"] = ServedFile(content=CONTENT[::-1])
    first = client.prompt(graph(web.url("sd.safetensors?key=hid")))
    name = first["prompt"]["1"]["inputs"]["ckpt_name"]
    assert name.startswith("sd-")
    assert models(machine, "checkpoints") == [name]
    assert len(first["images"]) == 1
    client.prompt(graph(web.url("sd.safetensors?key=hid")))
    assert len(web.gets("sd.safetensors?key=hid")) == 1
    client.prompt(graph(web.url("sd.safetensors?key=hid2")))
    assert len(models(machine, "checkpoints")) == 2
    assert "hid" not in str(first)
    assert b"hid" not in records(server)


def test_credentials_are_for_models_too(client: Client, server: ServerProcess, web: FileServer) -> None:
    web.files["sd.safetensors"] = ServedFile(content=CONTENT, token="hid")
    prompt = graph(web.url("sd.safetensors"))
    refused = client.post("/prompt", prompt=prompt)
    assert refused.status_code == 400, refused.text
    assert refused.json()["location"] == "prompt.1.inputs.ckpt_name"
    assert refused.json()["error"].startswith("Failed to download model for node 1: 127.0.0.1 answers 401")
    credentials = [{"url_pattern": f"{web.origin}/*", "auth": {"type": "bearer", "token": "hid"}}]
    answer = client.prompt(prompt, credentials=credentials)
    assert answer["prompt"]["1"]["inputs"]["ckpt_name"] == name_of_url(web.url("sd.safetensors"))
    assert b"hid" not in records(server)


@pytest.mark.parametrize(
    ("class_type", "name", "url", "reason"),
    [
        ("CheckpointLoaderSimple", "ckpt_name", "https://example.com/a.ckpt", "example.com is not in {}"),
        ("CheckpointLoaderSimple", "ckpt_name", "http://example.com/a", "http://example.com is not in {}"),
        ("UNETLoader", "unet_name", "https://u:hid@example.com/a?key=hid", "example.com is not in {}"),
        ("OtherLoader", "lora_name", "https://example.com/a", "example.com is not in {}"),
        ("VAELoader", "vae_name", "s3://bucket/a.safetensors", "only from URLs with https or http"),
        ("VAELoader", "vae_name", "https://[/a", "only from URLs with https or http"),
        ("DiffusersLoader", "model_path", "https://huggingface.co/a/b", "needs a directory"),
    ],
)
def test_a_url_that_may_not_be_downloaded_is_refused_at_once(
    client: Client, class_type: str, name: str, url: str, reason: str
) -> None:
    prompt = {**graph("a"), "7": {"class_type": class_type, "inputs": {name: url}}}
    refused = client.post("/prompt", prompt=prompt, webhook="https://client.example/hook")
    assert refused.status_code == 400, refused.text
    assert refused.json()["location"] == f"prompt.7.inputs.{name}"
    error = refused.json()["error"]
    assert error.startswith("Failed to download model for node 7: ")
    assert reason.format("COMFYUI_WORKFLOW_PROVISION_HOSTS") in error
    assert "hid" not in error


def test_a_url_in_an_input_that_is_no_model_is_a_text(client: Client, web: FileServer) -> None:
    prompt = {**graph("sandbox-stand-in.safetensors")}
    prompt["5"] = {
        "class_type": "CLIPTextEncode",
        "inputs": {"clip": ["1", 1], "text": "https://example.com/a.safetensors"},
    }
    assert client.prompt(prompt)["prompt"]["5"]["inputs"]["text"] == "https://example.com/a.safetensors"
    assert web.asked == []


def test_a_model_is_downloaded_and_then_loaded(
    client: Client, server: ServerProcess, machine: OpenSSHInstance, web: FileServer
) -> None:
    web.files["dir/sd.safetensors?key=hid"] = ServedFile(content=CONTENT, token="hid")
    url = web.url("dir/sd.safetensors?key=hid")
    body = {"url": url, "model_type": "checkpoints", "wait": True}
    answer = client.post("/download", **body, auth={"type": "bearer", "token": "hid"})
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document.pop("duration") >= 0
    assert document == {
        "url": web.url("dir/sd.safetensors?key=..."),
        "model_type": "checkpoints",
        "filename": "sd.safetensors",
        "status": "completed",
        "size": len(CONTENT),
    }
    assert models(machine, "checkpoints") == ["sd.safetensors"]
    assert "sd.safetensors" in client.get("/models").json()["checkpoints"]
    client.prompt(graph("sd.safetensors"))
    again = client.post("/download", **body)
    assert (again.status_code, again.json()["size"]) == (200, len(CONTENT))
    assert len(web.gets("dir/sd.safetensors?key=hid")) == 1
    assert b"hid" not in records(server)


def test_a_download_that_nobody_waits_for_survives_a_cut(
    client: Client, machine: OpenSSHInstance, web: FileServer
) -> None:
    file = web.files["sd"] = ServedFile(content=CONTENT, pause=threading.Event())
    fields = {"url": web.url("sd"), "model_type": "unet", "filename": "flux/sd.sft"}
    answer = client.post("/download", **fields)
    assert (answer.status_code, answer.json()) == (202, {**fields, "status": "started"})
    wait_until(lambda: models(machine, "diffusion_models/flux"))
    wait_until(lambda: web.gets("sd"))
    machine.cut()
    assert file.pause is not None
    file.pause.set()
    wait_until(lambda: models(machine, "diffusion_models/flux") == ["sd.sft"], 40)


def test_a_download_goes_to_the_named_instance(
    server: ServerProcess, client: Client, machine: OpenSSHInstance, web: FileServer
) -> None:
    web.files["v.safetensors"] = ServedFile(content=CONTENT)
    instances = server.url.removesuffix("/workflow") + "/instances"
    added = requests.post(instances, json={"name": "gpu", "ssh_connection": machine.ssh_string}, timeout=30)
    assert added.status_code == 201, added.text
    for target in ("gpu", "any"):
        client.headers = {"Comfyui-Target": target}
        answer = client.post("/download", url=web.url("v.safetensors"), model_type="vae", wait=True)
        assert answer.status_code == 200, answer.text
    assert models(machine, "vae") == ["v.safetensors"]


BAD = {"error": "Bad Request"}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"url": None}, BAD),
        ({"model_type": 5}, BAD),
        ({"filename": None}, BAD),
        ({"wait": "yes"}, BAD),
        ({"auth": {"type": "bearer"}}, BAD),
        ({"url": "nonsense"}, "only from URLs with https or http"),
        ({"url": "s3://bucket/a.safetensors"}, "only from URLs with https or http"),
        ({"url": "https://example.com/a.ckpt"}, "example.com is not in COMFYUI_WORKFLOW_PROVISION_HOSTS"),
        ({"url": "http://169.254.169.254/a.ckpt"}, "is not in COMFYUI_WORKFLOW_PROVISION_HOSTS"),
        ({"filename": "../a.safetensors"}, "filename must be a name below the folder"),
        ({"filename": "a.py"}, "its name is not that of a model file"),
        (
            {"auth": {"type": "s3", "access_key_id": "i", "secret_access_key": "hid"}},
            "of type s3 are not for",
        ),
        (
            {"model_type": "nothing"},
            "Unknown model type: nothing. Available types: audio_encoders, checkpoints",
        ),
        ({"model_type": "custom_nodes"}, "Unknown model type: custom_nodes. Available types: "),
        ({"model_type": "nothing", "wait": False}, "Unknown model type: nothing. Available types: "),
        ({}, "127.0.0.1 answers 404 for m.ckpt"),
    ],
)
def test_a_download_that_cannot_be_done_says_why(
    client: Client, web: FileServer, fields: Json, error: str | Json
) -> None:
    body = {"url": web.url("m.ckpt"), "model_type": "checkpoints", "wait": True, **fields}
    answer = client.post("/download", **body)
    assert answer.status_code == 400, answer.text
    assert answer.json() == BAD if error == BAD else str(error) in answer.json()["error"]
    assert answer.json().keys() == {"error"}
    assert '"hid"' not in answer.text


def test_a_server_that_stops_ends_its_downloads_and_the_next_one_continues(
    server: ServerProcess, client: Client, machine: OpenSSHInstance, web: FileServer
) -> None:
    file = web.files["m.ckpt"] = ServedFile(content=CONTENT, pause=threading.Event())
    fields = {"url": web.url("m.ckpt"), "model_type": "checkpoints"}
    assert client.post("/download", **fields).status_code == 202
    part = machine.sandbox.output_dir.parent / "models" / "checkpoints"
    wait_until(lambda: any(each.stat().st_size for each in part.glob(".m.ckpt.*.part")))
    assert server.terminate() == 0
    assert file.pause is not None
    file.pause.set()
    server.start()
    answer = client_of(server, machine).post("/download", **fields, wait=True)
    assert answer.status_code == 200, answer.text
    assert (part / "m.ckpt").read_bytes() == CONTENT
    assert web.gets("m.ckpt")[-1].range is not None
