"""Tests that a prompt posted at a local port runs once, even if the response is lost."""

import uuid
from typing import Any

import pytest
import requests

from comfyui_workflow.proxy import submit
from comfyui_workflow.proxy.model import PortWanted
from comfyui_workflow.proxy.ports import LocalPorts
from tests.client.late_relay import LateRelay
from tests.proxy.setting import Lender, Setting
from tests.sandbox.graphs import quick_graph
from tests.sandbox.running_comfyui import LIMIT_S, RunningComfyUI


def started(comfyui: RunningComfyUI) -> list[str]:
    return [entry["prompt_id"] for entry in comfyui.executions() if entry["event"] == "start"]


def lose_answer(comfyui: RunningComfyUI, mode: str = "drop", **faults: Any) -> None:
    comfyui.faults(answers=[{"path": "/prompt", "mode": mode, "method": "POST"}], **faults)


@pytest.mark.parametrize("own_id", [{}, {"prompt_id": str(uuid.uuid4())}], ids=["no id", "its own id"])
def test_an_answer_that_is_lost_is_asked_for(setting: Setting, own_id: dict[str, str]) -> None:
    lose_answer(setting.comfyui)
    answer = setting.post("/prompt", {"prompt": quick_graph(), **own_id})
    assert answer.status_code == 200
    said = answer.json()
    assert said["node_errors"] == {}
    assert own_id.get("prompt_id") in (None, said["prompt_id"])
    setting.comfyui.wait_for(said["prompt_id"])
    assert started(setting.comfyui) == [said["prompt_id"]]


def test_a_prompt_that_did_not_arrive_is_sent_again_and_a_late_one_is_dropped(
    comfyui: RunningComfyUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "IN_DOUBT_S", 0.0)
    comfyui.faults(hold=True)
    with LateRelay(comfyui.url("")) as relay:
        ports = LocalPorts(Lender(relay.url).borrow)
        ports.start()
        try:
            ports.set_ports({"one": PortWanted(name="primary", port=0)})
            state = ports.state("one")
            assert state is not None
            url, body = f"http://127.0.0.1:{state.port}/prompt", {"prompt": quick_graph(), "client_id": "me"}
            said = requests.post(url, json=body, timeout=LIMIT_S).json()
        finally:
            ports.stop()
        assert relay.prompts == 2
    comfyui.faults(hold=False)
    comfyui.wait_for(said["prompt_id"])
    assert started(comfyui) == [said["prompt_id"]]


def test_a_refusal_comes_in_the_words_of_comfyui_also_the_second_time(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "IN_DOUBT_S", 0.0)
    body = {"prompt": {"1": {"class_type": "NoSuchNode", "inputs": {}}}}
    refusal = setting.post("/prompt", body)
    lose_answer(setting.comfyui)
    again = setting.post("/prompt", body)
    assert (again.status_code, again.json()) == (400, refusal.json())
    assert again.headers["Content-Type"].startswith("application/json")


def test_where_the_id_is_the_instances_own_nothing_is_sent_again(setting: Setting) -> None:
    lose_answer(setting.comfyui, version="0.3.41")
    answer = setting.post("/prompt", {"prompt": quick_graph()})
    assert answer.status_code == 502
    assert answer.json()["error"]["type"] == "answer_lost"
    assert len(started(setting.comfyui)) <= 1
