"""Custom workflows in the API of comfyui-api, run over a real SSH server."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.delivery.receiver import receiving
from tests.foreign_client import INSTALLED
from tests.instance import Instance
from tests.integration.graphs import loaded, painted
from tests.integration.test_comfyui_api import Client, free_port, picture
from tests.sandbox.running_comfyui import wait_until
from tests.server_process import ServerProcess
from tests.services.custom_files import install_npm_packages, write

IMG2IMG = """
import { z } from "zod";
const RequestSchema = z.object({
  image: z.string().describe("A picture: base64 or a URL"),
  name: z.string().default("copied"),
});
function generateWorkflow(input) {
  if (input.name === "refused") throw new Error("no such name");
  return {
    "1": { class_type: "LoadImage", inputs: { image: input.image } },
    "2": { class_type: "SaveImage", inputs: { images: ["1", 0], filename_prefix: input.name } },
  };
}
export default { RequestSchema, generateWorkflow, summary: "Copy" };
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "workflows"
    size = {"size": {"input": ["1.width", "1.height"], "default": 16}}
    write(made, "declared.json", json.dumps({"workflow": painted(1), "parameters": size}))
    photo = {"photo": {"input": "1.image", "type": "file", "required": True}}
    write(made, "copy.json", json.dumps({"workflow": loaded("a.png"), "parameters": photo}))
    return made


def encoded(size: tuple[int, int]) -> str:
    content = io.BytesIO()
    Image.new("RGB", size).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def test_at_both_places_a_request_is_answered_with_its_outputs(
    make_server: Callable[..., ServerProcess], instance: Instance, directory: Path
) -> None:
    port = free_port()
    server = make_server(
        workflow_dir=directory, comfyui_api_port=port, comfyui_api_target=instance.ssh_string
    )
    own = Client(f"http://127.0.0.1:{port}")
    below = Client(server.url.replace("/comfyui/workflow", "/comfyui-api"))
    for client in (own, below):
        answer = client.post("/workflow/declared", id="mine", input={"size": 48})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body.keys() == {"id", "prompt", "images", "filenames", "stats", "input"}
        assert (body["input"], picture(body["images"][0]).size) == ({"size": 48}, (48, 48))
        assert body["filenames"][0].startswith("mine_out_")
    copied = own.post("/workflow/copy", input={"photo": encoded((7, 5))}, convert_output={"format": "webp"})
    assert copied.status_code == 200, copied.text
    assert picture(copied.json()["images"][0]).format == "WEBP"
    assert picture(copied.json()["images"][0]).size == (7, 5)
    assert own.get("/docs/json").json()["paths"]["/workflow/declared"]["post"]["tags"] == ["Prompts"]
    gone = own.post("/workflow/gone", input={})
    assert (gone.status_code, gone.json()["message"]) == (404, "Route POST:/workflow/gone not found")


def test_a_webhook_gets_its_outputs(
    make_server: Callable[..., ServerProcess], instance: Instance, directory: Path
) -> None:
    server = make_server(workflow_dir=directory, webhook_private=True)
    client = Client(server.url.replace("/comfyui/workflow", "/comfyui-api"), instance.ssh_string)
    with receiving() as receiver:
        answer = client.post("/workflow/declared", input={}, webhook=receiver.url("/v1"))
        assert (answer.status_code, answer.json()["status"]) == (202, "ok")
        assert answer.json()["input"] == {"size": 16}
        wait_until(lambda: receiver.heard, what="the output was sent")
        body = json.loads(receiver.heard[0].content)
        assert (body["event"], body["id"]) == ("output.complete", answer.json()["id"])
        assert picture(body["image"]).size == (16, 16)


@pytest.mark.skipif(
    not (INSTALLED / "workflow_javascript" / ".pinned").exists(), reason="npm packages are not installed"
)
def test_a_file_of_comfyui_api_takes_base64_as_there(
    make_server: Callable[..., ServerProcess], instance: Instance, directory: Path
) -> None:
    install_npm_packages(directory)
    write(directory, "sd/img2img.ts", IMG2IMG)
    server = make_server(workflow_dir=directory)
    client = Client(server.url.replace("/comfyui/workflow", "/comfyui-api"), instance.ssh_string)
    answer = client.post("/workflow/sd/img2img", input={"image": encoded((9, 4)), "unknown": 1})
    assert answer.status_code == 200, answer.text
    assert answer.json()["input"].keys() == {"image", "name"}
    assert picture(answer.json()["images"][0]).size == (9, 4)
    refused = client.post("/workflow/sd/img2img", input={"image": "x", "name": "refused"})
    _is_refused(refused, {"error": "Failed to generate workflow prompt: no such name", "location": "input"})
    invalid = client.post("/workflow/sd/img2img", input={"image": 3})
    assert invalid.json()["message"] == "body/input/image Expected string, received number"
    not_a_picture = client.post("/workflow/sd/img2img", input={"image": "x!"})
    assert not_a_picture.json()["location"] == "prompt.1.inputs.image"


def _is_refused(answer: requests.Response, body: dict[str, str]) -> None:
    assert (answer.status_code, answer.json()) == (400, body)
