"""A job is a run: the native API sees it and cancels it, and a server that is killed takes it up again."""

import json
import threading
import time
from collections.abc import Callable

import pytest
import requests

from tests.delivery.receiver import Answer, Heard, Receiver, receiving
from tests.integration.graphs import loaded, painted, slow
from tests.integration.test_jobs import FINAL, Client, Json
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess

LIMIT_S = 30


@pytest.fixture
def client(make_server: Callable[..., ServerProcess], sandbox: SandboxProcess) -> Client:
    return Client(make_server(default_endpoint=sandbox.ssh_string, webhook_private="true"))


def listed(client: Client) -> dict[str, str]:
    return {run["workflow_id"]: run["status"] for run in client.server.get("?limit=10")["workflows"]}


def test_it_is_in_the_list_and_cancelled_from_there(client: Client, sandbox: SandboxProcess) -> None:
    with receiving() as receiver:
        job_id = client.order(slow(1, steps=600), webhook=receiver.url())["id"]
        waiting = client.order(painted(2))["id"]
        client.until(job_id, "IN_PROGRESS")
        assert listed(client) == {job_id: "executing", waiting: "queued"}
        for each in (waiting, job_id):
            assert client.server.post(f"/{each}/cancel").status_code == 200
            assert client.until(each, *FINAL)["status"] == "CANCELLED"
        assert listed(client) == {job_id: "cancelled", waiting: "cancelled"}
        told = only_heard(client, receiver)
        assert (told["id"], told["status"], "output" in told) == (job_id, "CANCELLED", False)
    assert len(sandbox.executions()) == 1


@pytest.mark.parametrize("moment", ["IN_QUEUE", "IN_PROGRESS"])
def test_a_server_killed_in_mid_job_ends_it_and_tells_it_once(
    client: Client, sandbox: SandboxProcess, moment: str
) -> None:
    with receiving() as receiver:
        job_id = client.order(slow(3, steps=10), webhook=receiver.url("/hook?secret"))["id"]
        client.until(job_id, moment)
        client.server.kill()
        client.server.start()
        done = client.until(job_id, *FINAL)
        assert (done["id"], done["status"]) == (job_id, "COMPLETED")
        told = only_heard(client, receiver)
        assert (told["id"], told["status"], told["output"]) == (job_id, "COMPLETED", done["output"])
    assert len(sandbox.executions()) == 1
    assert listed(client) == {job_id: "completed"}


def test_while_an_image_is_fetched_it_is_cancelled_at_once_as_a_run(client: Client) -> None:
    is_over = threading.Event()

    def answer(_: Heard) -> Answer:
        is_over.wait(2 * LIMIT_S)
        return Answer()

    with receiving() as receiver:
        receiver.answers = [answer]
        image = {"name": "a.png", "image": receiver.url("/a.png")}
        job_id = client.order(loaded("a.png"), images=(image,))["id"]
        while not receiver.heard:
            time.sleep(0.02)
        assert client.server.post(f"/{job_id}/cancel").status_code == 200
        assert client.until(job_id, *FINAL)["status"] == "CANCELLED"
        assert listed(client) == {job_id: "cancelled"}
        is_over.set()


def test_whoever_waits_is_answered_when_the_server_is_asked_to_end(client: Client) -> None:
    job_id = client.order(slow(5, steps=600))["id"]
    client.until(job_id, "IN_PROGRESS")
    answers: list[requests.Response] = []
    url = f"{client.url}/status-sync/{job_id}?wait=300000"
    waiting = [
        threading.Thread(target=lambda: answers.append(requests.get(url, timeout=LIMIT_S))) for _ in range(7)
    ]
    for thread in waiting:
        thread.start()
    while not answers:  # that one is, at once, since the six others wait
        time.sleep(0.02)
    assert client.server.terminate() == 0
    for thread in waiting:
        thread.join()
    assert [answer.json()["status"] for answer in answers] == ["IN_PROGRESS"] * 7
    assert "thread(s) still running" not in client.server.log()
    assert "Traceback" not in client.server.log()


def test_what_executed_in_time_is_completed_however_long_nobody_looked(
    client: Client, sandbox: SandboxProcess
) -> None:
    job_id = client.order(slow(4, steps=5), policy={"executionTimeout": 5000})["id"]
    client.until(job_id, "IN_PROGRESS")
    began_s = time.monotonic()
    client.server.kill()
    time.sleep(max(0.0, began_s + 5.5 - time.monotonic()))
    client.server.start()
    done = client.until(job_id, *FINAL)
    assert (done["status"], len(done["output"]["images"])) == ("COMPLETED", 1)
    assert len(sandbox.executions()) == 1


def only_heard(client: Client, receiver: Receiver) -> Json:
    """When it is delivered: by then nothing is left to be sent."""
    deadline_s = time.monotonic() + LIMIT_S
    while [each["status"] for each in webhooks(client)] != ["delivered"]:
        assert time.monotonic() < deadline_s, f"{webhooks(client)}\n{client.server.log()[-3000:]}"
        time.sleep(0.02)
    (heard,) = receiver.heard
    found: Json = json.loads(heard.content)
    return found


def webhooks(client: Client) -> list[Json]:
    found: list[Json] = requests.get(f"{client.url}/comfyui/webhooks", timeout=LIMIT_S).json()["webhooks"]
    return found
