"""Jobs from a client's request to the picture in its hands, over SSH."""

import base64
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
import requests
from PIL import Image

from tests.instance import Instance
from tests.integration.graphs import Graph, failing, loaded, painted, slow
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess

Json = dict[str, Any]
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


class Client:
    """The client of one endpoint, by its bare paths."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server

    @property
    def url(self) -> str:
        return self.server.url.removesuffix("/comfyui/workflow")

    def post(self, path: str, body: Json | None = None) -> Json:
        headers = {"Authorization": "Bearer any"}
        answer = requests.post(self.url + path, json=body, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    def order(self, graph: Graph, path: str = "/run", images: tuple[Json, ...] = (), **besides: Any) -> Json:
        return self.post(path, {"input": {"workflow": graph, "images": images}, **besides})

    def status(self, job_id: str) -> Json:
        found: Json = requests.get(f"{self.url}/status/{job_id}", timeout=30).json()
        return found

    def until(self, job_id: str, *statuses: str, timeout_s: float = 30) -> Json:
        deadline_s = time.monotonic() + timeout_s
        while (found := self.status(job_id))["status"] not in statuses:
            assert time.monotonic() < deadline_s, f"{found}\n{self.server.log()[-3000:]}"
            time.sleep(0.02)
        return found


@pytest.fixture
def make_client(make_server: Callable[..., ServerProcess]) -> Callable[..., Client]:
    def make(instance: Instance | SandboxProcess, **settings: object) -> Client:
        return Client(make_server(default_endpoint=instance.ssh_string, **settings))

    return make


@pytest.fixture
def client(make_client: Callable[..., Client], sandbox: SandboxProcess) -> Client:
    return make_client(sandbox)


def picture(size: int, color: tuple[int, int, int]) -> bytes:
    file = BytesIO()
    Image.new("RGB", (size, size), color).save(file, "PNG")
    return file.getvalue()


def test_a_picture_goes_there_and_its_inverse_comes_back(
    make_client: Callable[..., Client], instance: Instance
) -> None:
    client = make_client(instance)
    image = {"name": "in a job.png", "image": base64.b64encode(picture(900, (1, 2, 3))).decode()}
    done = client.order(loaded("in a job.png"), "/runsync", (image,))
    assert (done["id"][:5], done["status"]) == ("sync-", "COMPLETED")
    (output,) = done["output"]["images"]
    assert output["type"] == "base64"
    assert Image.open(BytesIO(base64.b64decode(output["data"]))).getpixel((5, 5)) == (254, 253, 252)
    assert 0 <= done["executionTime"] <= 60_000
    assert client.status(done["id"])["output"] == done["output"]


def test_what_goes_wrong_is_in_the_words_of_the_specification(
    client: Client, sandbox: SandboxProcess
) -> None:
    done = client.order(failing("it broke"), "/runsync")
    assert done["error"] == (
        "Workflow execution error: Node Type: SandboxRaise, Node ID: 2, Message: it broke"
    )
    sandbox.faults(out_of_memory_class="ImageInvert")
    done = client.order(painted(15), "/runsync")
    assert done["error"].startswith(
        "Workflow execution error: Node Type: ImageInvert, Node ID: 2, Message: CUDA out of memory. Tried to "
    )
    sandbox.faults(out_of_memory_class=None)
    missing = painted()
    missing["2"]["class_type"] = "NotThere"
    refused = client.order(missing, "/runsync")
    assert refused["error"].startswith("Workflow validation failed: node 2 (NotThere")
    done = client.order(loaded("not there.png"), "/runsync")
    assert (done["status"], done["error"].partition(":")[0]) == ("FAILED", "Workflow validation failed")


def test_an_instance_that_is_away_is_told_as_such(make_server: Callable[..., ServerProcess]) -> None:
    client = Client(make_server(default_endpoint="ssh root@127.0.0.1 -p 1", contact_patience_s=0))
    done = client.order(painted(), "/runsync")
    away = "ComfyUI server (root@127.0.0.1:1) not reachable after multiple retries: "
    assert done["error"].startswith(away)


def test_a_job_that_executes_is_cancelled_and_one_times_out(client: Client) -> None:
    for besides, ending in (({}, "CANCELLED"), ({"policy": {"executionTimeout": 5000}}, "TIMED_OUT")):
        job_id = client.order(slow(7, steps=400), **besides)["id"]
        client.until(job_id, "IN_PROGRESS")
        if not besides:
            assert client.post(f"/cancel/{job_id}")["status"] == "CANCELLED"
        client.until(job_id, ending)
        client.server.until_status(job_id, "cancelled")


def test_a_killed_server_loses_no_job_and_executes_none_twice(
    client: Client, sandbox: SandboxProcess
) -> None:
    job_ids = [client.order(slow(color, steps=10, prefix=f"k{color}"))["id"] for color in range(3)]
    client.until(job_ids[0], "IN_PROGRESS")
    client.server.kill()
    client.server.start()
    done = [client.until(job_id, *FINAL) for job_id in job_ids]
    assert [each["status"] for each in done] == ["COMPLETED"] * 3
    assert [len(each["output"]["images"]) for each in done] == [1] * 3
    assert len(sandbox.executions()) == 3


def test_a_fresh_worker_has_an_empty_memory(
    make_client: Callable[..., Client], sandbox: SandboxProcess
) -> None:
    client = make_client(sandbox, refresh_worker=True)
    client.order(painted(11), "/runsync")
    for _ in range(20):  # it is freed after the client has been answered
        run_id = client.order(painted(11), "/runsync")["id"].removeprefix("sync-")
        if all(node["message"] != "Cached" for node in client.server.progress(run_id)["nodes"]):
            return
    raise AssertionError("nothing was forgotten")
