"""Tests of validation: a request does not wait longer than the timeout."""

import threading

import pytest

from comfyui_workflow.errors import ConnectionFailed, ServerBusy, Stopped
from comfyui_workflow.provisioning.offers import ModelOffers
from comfyui_workflow.provisioning.packs import PackOffers, PackRules
from comfyui_workflow.provisioning.rules import DownloadRules
from comfyui_workflow.runs.model import RunRequest
from comfyui_workflow.runs.target import target_of_record
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.services import validation
from comfyui_workflow.services.validation import MOST_AT_ONCE, ValidationService
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey
from comfyui_workflow.ssh.pool import Pool
from comfyui_workflow.workflows.model import Workflow

REQUEST = RunRequest(
    target=target_of_record("ssh root@gpu"),
    workflow=Workflow(graph={"1": {"class_type": "A", "inputs": {}}}),
    workflow_name="a",
    output_dir="/tmp",
    comfyui_port=8188,
    comfyui_input_dir="/in",
    comfyui_output_dir="/out",
)

WEB = GuardedClient(may_reach_private=False)
NO_OFFERS = (ModelOffers(DownloadRules(), WEB), PackOffers(PackRules(), WEB))


class SilentInstance:
    """Blocks every connection attempt until it is released, and then refuses."""

    def __init__(self) -> None:
        self.is_asked = threading.Event()
        self.may_answer = threading.Event()

    def open(self, _key: InstanceKey) -> ComfyUISession:
        self.is_asked.set()
        self.may_answer.wait(10)
        raise ConnectionFailed("refused")


def test_an_instance_that_lets_nobody_in_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "PATIENCE_S", 0.05)
    instance = SilentInstance()
    with pytest.raises(ConnectionFailed, match="No connection to root@gpu:22 within"):
        ValidationService(Pool(instance.open), *NO_OFFERS).inspect(REQUEST)
    instance.may_answer.set()


def test_a_server_that_stops_says_so() -> None:
    pool = Pool(SilentInstance().open)
    pool.close()
    with pytest.raises(Stopped, match="stopping"):
        ValidationService(pool, *NO_OFFERS).inspect(REQUEST)


def test_only_so_many_ask_at_once() -> None:
    instance = SilentInstance()
    inspector = ValidationService(Pool(instance.open), *NO_OFFERS)
    answers: list[Exception] = []
    waiting = [threading.Thread(target=_ask, args=(inspector, answers)) for _ in range(MOST_AT_ONCE + 1)]
    for thread in waiting:
        thread.start()
    assert instance.is_asked.wait(10)
    while not answers:  # the request above the limit is refused at once
        waiting[0].join(0.01)
    assert [type(answer) for answer in answers] == [ServerBusy]
    instance.may_answer.set()
    for thread in waiting:
        thread.join(10)
    assert len(answers) == MOST_AT_ONCE + 1


def _ask(inspector: ValidationService, answers: list[Exception]) -> None:
    try:
        inspector.inspect(REQUEST)
    except (ServerBusy, ConnectionFailed) as error:
        answers.append(error)
