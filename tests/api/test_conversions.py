"""Number of conversions of an editor file between the request and the submitted graph."""

from typing import Any, cast

import pytest

from comfyui_workflow.execution.prepare import prepared_graph
from comfyui_workflow.runs.model import Run
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey
from comfyui_workflow.ssh.pool import Pool
from comfyui_workflow.workflows.editor.conversion import _Conversion
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.resolve import preliminary_graph
from tests.api.conftest import Api
from tests.api.test_workflow import SSH
from tests.workflows.making import class_of, file, node

FILE = file(node(1, "Save", ["a"]))
DEFINITIONS = Definitions({"Save": class_of({"name": ["STRING", {}]}, output_node=True)})
RUNS = 50


class Conversions:
    """Counts conversions: `without` node definitions (outlines) and `with_definitions` of an instance."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.without = self.with_definitions = 0
        original = _Conversion.__init__

        def counted(conversion: _Conversion, given: object, definitions: Definitions, queueing: Any) -> None:
            if "Save" in definitions:
                self.with_definitions += 1
            else:
                self.without += 1
            original(conversion, given, definitions, queueing)

        monkeypatch.setattr(_Conversion, "__init__", counted)

    @property
    def counts(self) -> tuple[int, int]:
        return self.without, self.with_definitions


class ReadyLink:
    """An open session of an instance that has one node class."""

    is_alive = True

    def reach(self, _port: int | None, *, again: bool) -> bool:
        return True

    def definitions(self) -> Definitions:
        return DEFINITIONS

    @property
    def client(self) -> "ReadyLink":
        return self

    def close(self) -> None:
        pass


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> Conversions:
    return Conversions(monkeypatch)


@pytest.fixture
def reached(make_api: Any) -> Api:
    sessions = Pool[InstanceKey, ComfyUISession](lambda key: cast(ComfyUISession, ReadyLink()))
    return cast(Api, make_api(sessions=sessions))


def carried_out(run: Run) -> None:
    """Executes the stages after the request: choosing an instance (needs the model files) and preparing the
    graph."""
    preliminary_graph(run.request)
    prepared_graph(cast(ComfyUISession, ReadyLink()), run.request)


def test_a_run_is_converted_once_before_its_instance_is_asked_and_once_with_its_classes(
    reached: Api, conversions: Conversions
) -> None:
    body = {"ssh_connection": SSH, "workflow": FILE, "inputs": {"1.name": "b"}}
    answer = reached.client.post("/comfyui/workflow/execute", json=body)
    carried_out(reached.journal.get(answer.json["workflow_id"]))
    assert conversions.counts == (1, 1)


def test_a_validation_is_converted_once_before_and_once_with_the_classes(
    reached: Api, conversions: Conversions
) -> None:
    body = {"ssh_connection": SSH, "workflow": FILE, "inputs": {"1.name": "b"}}
    answer = reached.client.post("/comfyui/workflow/validate", json=body)
    assert answer.json["valid"], answer.text
    assert conversions.counts == (1, 1)


@pytest.mark.parametrize(
    "order",
    [
        {"ssh_connection": SSH, "workflow": FILE, "rows": [{"1.name": str(n)} for n in range(RUNS)]},
        {"runs": [{"ssh_connection": SSH, "workflow": FILE} for _ in range(RUNS)]},
    ],
    ids=["rows", "runs"],
)
def test_the_runs_of_a_batch_share_what_is_known_before_their_instance_is_asked(
    reached: Api, conversions: Conversions, order: dict[str, Any]
) -> None:
    answer = reached.client.post("/comfyui/workflow/batch", json=order)
    for run_id in answer.json["workflow_ids"]:
        carried_out(reached.journal.get(run_id))
    assert conversions.counts == (1, RUNS)
