"""A server that is killed at any step of a prompt of comfyui-api: one execution, and its end is told."""

import json
import threading
from collections.abc import Callable, Iterator

import pytest
import requests

from tests.delivery.receiver import Answer, Receiver, receiving
from tests.instance import Instance
from tests.integration.graphs import slow
from tests.integration.test_comfyui_api import Client, hooked
from tests.sandbox.running_comfyui import wait_until
from tests.server_process import ServerProcess


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as opened:
        yield opened


def restarted(server: ServerProcess, client: Client) -> None:
    server.kill()
    server.start()
    client.base_url = server.url.replace("/comfyui/workflow", "/comfyui-api")


def has_prompt_id(server: ServerProcess, run_id: str) -> bool:
    return server.progress(run_id)["prompt_id"] is not None


def is_executed(server: ServerProcess, instance: Instance, run_id: str) -> bool:
    prompt_id = server.progress(run_id)["prompt_id"]
    return any(each["prompt_id"] == prompt_id for each in instance.sandbox.executions())


def executions(server: ServerProcess, instance: Instance, run_id: str) -> int:
    prompt_id = server.progress(run_id)["prompt_id"]
    return sum(each["prompt_id"] == prompt_id for each in instance.sandbox.executions())


@pytest.mark.parametrize("step", ["accepted", "being submitted", "submitted", "executed", "webhook refused"])
def test_a_prompt_with_a_webhook_executes_once(
    make_server: Callable[..., ServerProcess], instance: Instance, receiver: Receiver, step: str
) -> None:
    server, client = hooked(make_server, instance)
    if step == "being submitted":
        instance.sandbox.faults(prompt_delay_s=1.5)
    if step == "submitted":
        instance.sandbox.faults(hold=True)
    if step == "webhook refused":
        receiver.answers = [Answer(status=500), Answer()]
    body = {"prompt": slow(7, steps=4, prefix="killed"), "webhook_v2": receiver.url()}
    client.post("/prompt", id="killed", **body)
    run_id = client.get("/prompt/killed").json()["workflow_id"]
    reached = {
        "accepted": lambda: True,
        "being submitted": lambda: has_prompt_id(server, run_id),
        "submitted": lambda: server.progress(run_id)["status"] == "queued" and has_prompt_id(server, run_id),
        "executed": lambda: is_executed(server, instance, run_id),
        "webhook refused": lambda: receiver.heard,
    }
    wait_until(reached[step], what=step)
    restarted(server, client)
    instance.sandbox.faults(hold=False, prompt_delay_s=0)
    assert server.until_finished(run_id)["status"] == "completed"
    told = 2 if step == "webhook refused" else 1
    wait_until(lambda: len(receiver.heard) >= told, what="the end was told")
    wait_until(lambda: "images" in client.get("/prompt/killed").json(), what="the outputs are there")
    assert executions(server, instance, run_id) == 1
    bodies = [json.loads(each.content) for each in receiver.heard]
    assert {(each["type"], each["id"], len(each["images"])) for each in bodies} == {
        ("prompt.complete", "killed", 1)
    }
    assert len({each.headers["webhook-id"] for each in receiver.heard}) == 1


def test_a_client_that_waited_finds_its_answer_afterwards(
    make_server: Callable[..., ServerProcess], instance: Instance
) -> None:
    server, client = hooked(make_server, instance)
    broken = list[Exception]()

    def wait() -> None:
        try:
            client.post("/prompt", id="waited", prompt=slow(8, steps=10))
        except requests.RequestException as error:
            broken.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: client.get("/prompt/waited").status_code == 200, what="it is on disk")
    run_id = client.get("/prompt/waited").json()["workflow_id"]
    server.until_status(run_id, "executing")
    restarted(server, client)
    waiting.join(30)
    assert broken
    assert server.until_finished(run_id)["status"] == "completed"
    wait_until(lambda: "images" in client.get("/prompt/waited").json(), what="the outputs are there")
    assert len(client.get("/prompt/waited").json()["images"]) == 1
    assert executions(server, instance, run_id) == 1
