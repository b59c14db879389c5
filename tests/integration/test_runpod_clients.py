"""The clients of RunPod, as they are, with nothing but another base URL: tests/install_foreign_clients.sh."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.delivery.receiver import Receiver, receiving
from tests.foreign_client import run_client
from tests.integration.graphs import failing, painted, slow
from tests.integration.test_fleet import until
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess
from tests.storage.conftest import s3_url as s3_url  # noqa: PLC0414 - a fixture
from tests.storage.s3_server import keys_in, make_bucket

SCRIPTS = Path(__file__).parent / "runpod_clients"
TOKEN = "a token of the test"
COLOR, INVERSE = 0x336699, (255 - 0x33, 255 - 0x66, 255 - 0x99)
ORDERS = {
    "painted": {"workflow": painted(COLOR)},
    "failing": {"workflow": failing("it broke")},
    "slow": {"workflow": slow(9, steps=600)},
    "invalid": [
        {"images": []},
        {"workflow": painted(COLOR), "images": [{"name": "a.png"}]},
        {"workflow": painted(COLOR), "images": [{"name": "a.png", "image": "no base64!"}]},
        {"workflow": {"1": {"inputs": {}}}},
    ],
}
Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Client:
    script: Path
    server: ServerProcess
    directory: Path

    @property
    def base_url(self) -> str:
        return self.server.url.removesuffix("/comfyui/workflow") + "/v2"

    def __call__(self, step: str, *arguments: str, **orders: Json) -> Json:
        (self.directory / "orders.json").write_text(json.dumps({**ORDERS, **orders}))
        is_python = self.script.suffix == ".py"
        return run_client(
            self.script,
            "runpod_python" if is_python else "runpod_javascript",
            step,
            *arguments,
            tmp_path=self.directory,
            RUNPOD_ENDPOINT_BASE_URL="" if step == "refused" and is_python else self.base_url,
            RUNPOD_API_KEY=TOKEN,
        )


@pytest.fixture(params=["runpod_package.py", "runpod_sdk.mjs"])
def client(
    request: pytest.FixtureRequest,
    make_server: Callable[..., ServerProcess],
    sandbox: SandboxProcess,
    tmp_path: Path,
) -> Client:
    """The URL of a server with a token and an instance named gpu1."""
    server = make_server(
        api_token=TOKEN,
        local_instances=True,
        ssh_key_dirs=sandbox.root,
        contact_patience_s=0,
        webhook_private="true",
    )
    name_instance(server, sandbox)
    directory = tmp_path / "client"
    directory.mkdir()
    return Client(script=SCRIPTS / request.param, server=server, directory=directory)


def name_instance(server: ServerProcess, sandbox: SandboxProcess) -> None:
    url = server.url.removesuffix("/workflow") + "/instances"
    instance = {"name": "gpu1", "ssh_connection": sandbox.ssh_string, "tags": ["big"]}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    requests.post(url, json=instance, headers=headers, timeout=30).raise_for_status()


def is_the_picture(output: Json) -> bool:
    (image,) = output["images"]
    assert (image.keys(), image["type"]) == ({"filename", "type", "data"}, "base64")
    color = Image.open(BytesIO(base64.b64decode(image["data"]))).getpixel((5, 5))
    return all(abs(here - wanted) <= 1 for here, wanted in zip(color, INVERSE, strict=True))  # type: ignore[arg-type]


def test_orders_and_what_becomes_of_them(client: Client) -> None:
    seen = client("whole", "big")
    assert is_the_picture(seen["output"])
    assert seen["streamed"] == seen["output"]["images"]
    assert is_the_picture(seen["sync"])
    assert seen["failed"]["error"] == (
        "Workflow execution error: Node Type: SandboxRaise, Node ID: 2, Message: it broke"
    )
    assert [seen[each]["status"] for each in ("job", "failed")] == ["COMPLETED", "FAILED"]
    assert all(isinstance(seen["job"][each], int) for each in ("delayTime", "executionTime"))
    assert seen["health"] == {
        "jobs": {"completed": 2, "failed": 1, "inProgress": 0, "inQueue": 0, "retried": 0},
        "workers": {"idle": 1, "initializing": 0, "ready": 1, "running": 0, "throttled": 0},
    }


def test_a_queue_is_cancelled_and_purged(client: Client, sandbox: SandboxProcess) -> None:
    seen = client("queue", "gpu1")
    first, second, _ = seen["ids"]
    assert seen["cancelled"] == {"id": second, "status": "CANCELLED"}
    assert (seen["before"]["inProgress"], seen["before"]["inQueue"]) == (1, 1), seen
    assert seen["purged"] == {"removed": 1, "status": "completed"}
    assert seen["last"] == {"id": first, "status": "CANCELLED"}
    assert seen["statuses"] == ["CANCELLED"] * 3
    assert 1 <= len(sandbox.executions()) <= 2, "the second was there, and may begin as the first one ends"


def test_a_job_that_failed_is_retried(client: Client, sandbox: SandboxProcess) -> None:
    sandbox.kill()
    seen = client("order", "gpu1", "painted")
    assert (seen["job"]["status"], seen["output"]) == ("FAILED", None)
    assert seen["job"]["error"].startswith("ComfyUI server (gpu1) not reachable after multiple retries: ")
    sandbox.restart()
    again = client("retry", "gpu1", seen["job"]["id"])
    assert again["said"] == {"id": seen["job"]["id"], "status": "IN_QUEUE"}
    assert again["status"] == "COMPLETED"
    assert is_the_picture(again["output"])


def test_an_invalid_order_is_a_failed_job(client: Client, sandbox: SandboxProcess) -> None:
    seen = client("invalid", "gpu1")
    assert [job["status"] for job in seen["jobs"]] == ["FAILED"] * len(ORDERS["invalid"])
    no_workflow, no_list, no_base64, no_graph = (job["error"] for job in seen["jobs"])
    assert no_workflow == "Missing 'workflow' parameter"
    assert no_list == "'images' must be a list of objects with 'name' and 'image' keys"
    assert no_base64.startswith("Failed to upload one or more input images: a.png: ")
    assert no_graph.startswith("Workflow validation failed: ")
    assert seen["sync"] is None
    assert not sandbox.executions()


def test_an_order_with_every_field(client: Client, s3_url: str) -> None:
    make_bucket(s3_url, "pictures")
    config = {"accessId": "i", "accessSecret": "s", "bucketName": "pictures", "endpointUrl": s3_url}
    with receiving() as receiver:
        example = {
            "input": ORDERS["painted"],
            "policy": {"executionTimeout": 3000, "ttl": 60_000, "lowPriority": False},
            "webhook": receiver.url("/first"),
            "webhookV2": receiver.url("/second"),
            "s3Config": {**config, "objectPath": "renders/today"},
        }
        seen = client("example", "gpu1", example=example)
        assert seen["status"] == "COMPLETED"
        (image,) = seen["output"]["images"]
        assert image["type"] == "s3_url"
        assert requests.get(image["data"], timeout=10).content[:4] == b"\x89PNG"
        assert keys_in(s3_url, "pictures")[0].startswith("renders/today/")
        until(lambda: len(statuses(receiver)) == 2, story=client.server.log)
        assert statuses(receiver) == {"/first": "COMPLETED", "/second": "COMPLETED"}


def statuses(receiver: Receiver) -> dict[str, Any]:
    """The status that each webhook told, by its path."""
    return {each.path: json.loads(each.content)["status"] for each in receiver.heard if each.method == "POST"}


def test_a_key_that_is_none_opens_nothing(client: Client, sandbox: SandboxProcess) -> None:
    assert "401" in client("refused", "gpu1", client.base_url)["error"]
    assert not sandbox.executions()


@pytest.mark.parametrize("client", ["runpod_package.py"], indirect=True)
def test_the_python_package_in_asyncio(client: Client) -> None:
    seen = client("in_asyncio", "any")
    assert is_the_picture(seen["output"])
    assert seen["streamed"] == seen["output"]["images"]
    assert (seen["status"], seen["cancelled"]["status"]) == ("COMPLETED", "CANCELLED")
    assert seen["purged"] == {"removed": 0, "status": "completed"}
    assert seen["health"]["jobs"]["completed"] == 1
