"""The target of a request is parsed only once."""

from typing import Any

import pytest

from comfyui_workflow.parsing import ssh_address
from comfyui_workflow.runs.target import Address, AnyInstance, InstanceId
from comfyui_workflow.sessions.session import key_of
from tests.api.conftest import Api
from tests.api.test_workflow import GRAPH

SSH = "ssh -p 40738 root@198.51.100.7 -L 8080:localhost:8080"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The texts that were parsed as ssh strings."""
    texts: list[object] = []
    read_words = ssh_address.read_words

    def counted(text: object) -> list[str]:
        texts.append(text)
        return read_words(text)

    monkeypatch.setattr(ssh_address, "read_words", counted)
    return texts


def execute(api: Api, ssh_connection: str, **more: Any) -> str:
    body = {"ssh_connection": ssh_connection, "workflow": GRAPH, **more}
    answer = api.client.post("/comfyui/workflow/execute", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json["workflow_id"])


def test_an_ssh_string_is_parsed_once(api: Api, parsed: list[object]) -> None:
    run_id = execute(api, SSH)
    run = api.journal.get(run_id)
    assert isinstance(run.request.target, Address)
    assert run.comfyui_port == 8080
    assert key_of(run).address is run.request.target.ssh
    asked = api.client.get(f"/comfyui/workflow/{run_id}/request").json["request"]
    assert asked["ssh_connection"] == SSH
    assert "comfyui_port" not in asked
    assert api.client.get(f"/comfyui/workflow/{run_id}/progress").json["progress"]["ssh_connection"] == SSH
    assert parsed == [SSH]


def test_the_name_of_an_instance_and_any_are_read_at_the_border(api: Api, parsed: list[object]) -> None:
    api.client.post("/comfyui/instances", json={"name": "Gpu", "ssh_connection": SSH, "tags": ["fast"]})
    parsed.clear()
    found = [api.journal.get(execute(api, each)).request.target for each in ("gpu", "any:Fast")]
    assert found == [InstanceId(text="gpu", instance_id="gpu"), AnyInstance(text="any:Fast", tag="fast")]
    assert not parsed
