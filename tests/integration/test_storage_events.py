"""The system webhook hears of the files that this server and its instances get and send."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.delivery.receiver import Receiver, receiving
from tests.instance import OpenSSHInstance
from tests.integration.graphs import loaded, painted
from tests.integration.test_comfyui_api import Client
from tests.provisioning.file_server import FileServer, ServedFile
from tests.sandbox.running_comfyui import wait_until
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess
from tests.sshd import Sshd

Json = dict[str, Any]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[OpenSSHInstance]:
    """A machine of the test's own, because models stay on it."""
    sshd = Sshd(tmp_path / "sshd")
    sshd.start_shells_in(tmp_path / "home")
    with SandboxProcess(tmp_path / "sandbox") as sandbox, sshd:
        yield OpenSSHInstance(sandbox, sshd)


def events(receiver: Receiver) -> list[Json]:
    bodies = [json.loads(each.content) for each in list(receiver.heard) if each.path == "/system"]
    return [each for each in bodies if each["event"].startswith("storage.")]


def test_an_input_a_model_and_an_output(
    make_server: Callable[..., ServerProcess], machine: OpenSSHInstance
) -> None:
    content = io.BytesIO()
    Image.new("RGB", (24, 16)).save(content, "PNG")
    with FileServer().running() as web, receiving() as receiver:
        web.files["a.png?token=hid"] = ServedFile(content=content.getvalue())
        web.files["m.safetensors?token=hid"] = ServedFile(content=b"m" * 5000)
        server = make_server(
            webhook_private=True,
            PROVISION_HOSTS=web.origin,
            SYSTEM_WEBHOOK_URL=receiver.url("/system"),
            SYSTEM_WEBHOOK_EVENTS="file_downloaded,file_uploaded",
        )
        client = Client(server.url.replace("/comfyui/workflow", "/comfyui-api"), machine.ssh_string)
        graph = loaded(web.url("a.png?token=hid"))
        graph["9"] = {
            "class_type": "CheckpointLoaderSimple",
            "inputs": {"ckpt_name": web.url("m.safetensors?token=hid")},
        }
        answer = client.prompt(graph, id="x", http_upload={"url_prefix": receiver.url("/base")})
        wait_until(lambda: len(events(receiver)) == 3, what="all transfers were told")
    by_url = {each["data"]["url"].partition("?")[0]: each for each in events(receiver)}
    image, model = by_url[web.url("a.png")], by_url[web.url("m.safetensors")]
    output = by_url[answer["images"][0]]
    assert [each["event"] for each in (image, model, output)] == [
        "storage.file_downloaded",
        "storage.file_downloaded",
        "storage.file_uploaded",
    ]
    assert all(each["data"].keys() == {"url", "local_path", "size", "duration"} for each in by_url.values())
    assert (image["data"]["size"], model["data"]["size"]) == (len(content.getvalue()), 5000)
    assert Path(model["data"]["local_path"]).read_bytes() == b"m" * 5000
    assert ("instance" in image, "instance" in model, "instance" in output) == (False, True, False)
    assert "hid" not in json.dumps(by_url)


@pytest.mark.parametrize("name", ["file_uploaded", "file_deleted"])
def test_an_event_of_another_name_is_not_told(
    make_server: Callable[..., ServerProcess], machine: OpenSSHInstance, name: str
) -> None:
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG")
    with FileServer().running() as web, receiving() as receiver:
        web.files["a.png"] = ServedFile(content=content.getvalue())
        server = make_server(
            webhook_private=True,
            SYSTEM_WEBHOOK_URL=receiver.url("/system"),
            SYSTEM_WEBHOOK_EVENTS=f"executed,{name}",
        )
        client = Client(server.url.replace("/comfyui/workflow", "/comfyui-api"), machine.ssh_string)
        client.prompt(loaded(web.url("a.png")))
        wait_until(lambda: receiver.heard, what="the execution was told")
        assert not events(receiver)


def test_a_message_of_comfyui_has_the_id_of_the_client(
    make_server: Callable[..., ServerProcess], machine: OpenSSHInstance
) -> None:
    with receiving() as receiver:
        server = make_server(
            webhook_private=True,
            SYSTEM_WEBHOOK_URL=receiver.url("/system"),
            SYSTEM_WEBHOOK_EVENTS="executed,execution_success,progress_state",
        )
        client = Client(server.url.replace("/comfyui/workflow", "/comfyui-api"), machine.ssh_string)
        client.prompt(painted(3), id="mine")
        native = server.until_finished(server.execute(machine.ssh_string, painted(4)))

        def told(prompt_id: str) -> set[str]:
            bodies = [json.loads(each.content) for each in list(receiver.heard)]
            return {each["event"] for each in bodies if each["data"]["data"]["prompt_id"] == prompt_id}

        wanted = {"comfy.executed", "comfy.execution_success"}
        wait_until(lambda: told("mine") >= wanted, what="the prompt was told")
        wait_until(lambda: told(native["prompt_id"]) >= wanted, what="the run was told")
        assert {json.loads(each.content)["data"]["data"]["prompt_id"] for each in receiver.heard} == {
            "mine",
            native["prompt_id"],
        }
